"""A worker that transforms images; an invalid item is refused alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.rpc import code_pb2

from fount.address import Addresses
from fount.transform_columns import COLUMNS
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import load_card, write_card
from handlers.execution.probes import make_manipulations
from handlers.models import load_family, source_file
from handlers.worker.worker import Worker
from tests.handlers.toys import reason_of, request, sample_item, seal_folder, send, transform_item

SOURCE = Path(__file__).resolve().parents[3] / "model_store" / "transforms"
SHAPE = (12, 10, 3)
Items = list[worker_pb2.WorkerItem]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    folder = tmp_path_factory.mktemp("transforms")
    card = load_card(SOURCE)
    for name in (card.weights.file, card.golden.file):
        (folder / name).write_bytes((SOURCE / name).read_bytes())
    write_card(card, folder)
    (folder / "family.py").write_bytes(source_file(card.family.name).read_bytes())
    seal_folder(folder, card, folder / "family.py")
    return Worker.load(folder, {}, build_family=load_family)


def item(start: int = 0, count: int = 4, shape: tuple[int, int, int] = SHAPE) -> worker_pb2.WorkerItem:
    return transform_item(make_manipulations(Addresses.of_range(3, start, count), shape))


def test_it_is_ready(worker: Worker) -> None:
    assert worker.model.engine, worker.model.reason


def answer(worker: Worker, *items: worker_pb2.WorkerItem) -> worker_pb2.WorkerReply:
    return send(worker, request(*items, operation=model_pb2.OPERATION_TRANSFORM))


def test_images_are_returned_in_their_shape(worker: Worker) -> None:
    [outcome] = answer(worker, item()).items
    assert (list(outcome.value.dims), outcome.value.dtype) == ([4, *SHAPE], model_pb2.DTYPE_UINT8)
    assert len(outcome.value.data) == 4 * 12 * 10 * 3


def test_an_image_with_the_identity_is_returned_unchanged(worker: Worker) -> None:
    rows = make_manipulations(Addresses.of_range(3, 0, 9), SHAPE)  # rows 0 and 8 are to stay
    data = answer(worker, transform_item(rows)).items[0].value.data
    images = np.frombuffer(data, np.uint8).reshape(9, *SHAPE)
    assert images[[0, 8]].tobytes() == rows.images[[0, 8]].tobytes()
    assert images[1:8].tobytes() != rows.images[1:8].tobytes()


def test_rows_in_several_items_have_the_bytes_of_one_item(worker: Worker) -> None:
    whole = answer(worker, item(0, 300)).items[0].value.data
    parts = answer(worker, item(0, 1), item(1, 76), item(77, 223)).items
    assert b"".join(part.value.data for part in parts) == whole


def test_addresses_may_be_a_range_too(worker: Worker) -> None:
    result = item(5, 3)
    by_range = worker_pb2.WorkerItem()
    by_range.CopyFrom(result)
    by_range.manipulation.addresses.CopyFrom(worker_pb2.Range(seed=3, start_index=5, count=3))
    first, second = answer(worker, result, by_range).items
    assert first.value.data == second.value.data


def test_a_description_names_the_operation(worker: Worker) -> None:
    reply = send(worker, worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE))
    assert list(reply.description.model.operations) == [model_pb2.OPERATION_TRANSFORM]
    assert not reply.description.model.HasField("condition")


def test_it_supports_no_other_operation(worker: Worker) -> None:
    [outcome] = send(worker, request(sample_item())).items
    assert (outcome.status.code, reason_of(outcome.status)) == (code_pb2.FAILED_PRECONDITION, "OPERATION_NOT_SUPPORTED")


def set_table(message: worker_pb2.WorkerItem, column: str, value: float) -> None:
    table = np.frombuffer(message.manipulation.parameters.data, np.float32).reshape(4, -1).copy()
    table[2, COLUMNS.index(column)] = value
    message.manipulation.parameters.data = table.tobytes()


WRONG: dict[str, tuple[Callable[[worker_pb2.WorkerItem], object], str]] = {
    "a range": (lambda w: w.range.CopyFrom(worker_pb2.Range(count=1)), "KIND_WRONG"),
    "floats message": (lambda w: setattr(w, "dtype", model_pb2.DTYPE_FLOAT32), "DTYPE_WRONG"),
    "float images": (lambda w: setattr(w.manipulation.images, "dtype", model_pb2.DTYPE_FLOAT32), "DTYPE_WRONG"),
    "three dims": (lambda w: w.manipulation.images.dims.pop(), "SHAPE_WRONG"),
    "no rows": (lambda w: w.manipulation.images.dims.__setitem__(0, 0), "SHAPE_WRONG"),
    "data cut": (lambda w: setattr(w.manipulation.images, "data", w.manipulation.images.data[:-1]), "DATA_WRONG"),
    "a column less": (lambda w: w.manipulation.parameters.dims.__setitem__(1, len(COLUMNS) - 1), "SHAPE_WRONG"),
    "a row less": (lambda w: w.manipulation.parameters.dims.__setitem__(0, 3), "SHAPE_WRONG"),
    "bytes for parameters": (lambda w: setattr(w.manipulation.parameters, "dtype", 1), "DTYPE_WRONG"),
    "parameters cut": (lambda w: setattr(w.manipulation.parameters, "data", b""), "DATA_WRONG"),
    "NaN": (lambda w: set_table(w, "brightness", float("nan")), "PARAMETER_WRONG"),
    "infinite": (lambda w: set_table(w, "shift_x", float("inf")), "PARAMETER_WRONG"),
    "no zoom": (lambda w: set_table(w, "zoom_factor", 0.0), "PARAMETER_WRONG"),
    "an address less": (lambda w: w.manipulation.addresses.indices.pop(), "INDICES_WRONG"),
    "a start and indices": (lambda w: setattr(w.manipulation.addresses, "start_index", 1), "INDICES_WRONG"),
    "a range less": (
        lambda w: w.manipulation.addresses.CopyFrom(worker_pb2.Range(count=3)), "ADDRESSES_WRONG",
    ),
    "no addresses": (lambda w: w.manipulation.ClearField("addresses"), "COUNT_WRONG"),
    "labels": (lambda w: w.manipulation.addresses.labels.append(1), "LABEL_NOT_TAKEN"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_item_is_refused_alone(worker: Worker, name: str) -> None:
    spoil, expected = WRONG[name]
    wrong = item()
    spoil(wrong)
    first, second, third = answer(worker, item(), wrong, item(8)).items
    assert (second.status.code, reason_of(second.status)) == (code_pb2.INVALID_ARGUMENT, expected)
    assert (first.WhichOneof("outcome"), third.WhichOneof("outcome")) == ("value", "value")


def test_images_of_another_shape_are_refused_with_the_remedy(worker: Worker) -> None:
    first, second = answer(worker, item(), item(shape=(10, 12, 3))).items
    assert first.WhichOneof("outcome") == "value"
    assert reason_of(second.status) == "SHAPE_NOT_SHARED"
    assert "[10, 12, 3], the call's first [12, 10, 3]" in second.status.message


def test_a_refused_item_does_not_set_the_shape(worker: Worker) -> None:
    wrong = item(shape=(10, 12, 3))
    wrong.manipulation.parameters.data = b""
    first, second = answer(worker, wrong, item()).items
    assert (reason_of(first.status), second.WhichOneof("outcome")) == ("DATA_WRONG", "value")


def test_an_item_beyond_every_call_is_refused_before_it_is_read(worker: Worker) -> None:
    large = worker_pb2.WorkerItem(manipulation=item().manipulation)
    large.manipulation.images.dims[:] = [1, 9000, 9000, 1]
    large.manipulation.images.data = bytes(81_000_000)
    [outcome] = answer(worker, large).items
    assert reason_of(outcome.status) == "ITEM_TOO_LARGE"
