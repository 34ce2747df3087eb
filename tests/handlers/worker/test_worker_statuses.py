"""A worker's answers: statuses, each for the one item at fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.rpc import code_pb2

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.worker.requests import CallCapacity
from handlers.worker.worker import Worker
from tests.handlers.toys import (
    GIVES_NAN,
    GIVES_TOO_MUCH,
    GIVES_WRONG_SHAPE,
    HAS_NO_MEMORY,
    IS_SLOW,
    LOSES_DEVICE,
    RAISES,
    FaultySampler,
    GreedySampler,
    ask,
    choosing,
    codes,
    drawing,
    load,
    reading,
    reason_of,
    request,
    toy_images,
    with_seconds,
)

_LARGEST_BEST = {8: 0.9e-9, 16: 1.0e-9, 32: 1.1e-9}  # less than any batch takes: what is seen only adds to it
CLASSIFY, EMBED = model_pb2.OPERATION_CLASSIFY, model_pb2.OPERATION_EMBED


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        pytest.param(drawing(count=0), "COUNT_WRONG", id="count-zero"),
        pytest.param(drawing(start=2**64 - 1, count=2), "INDEX_WRONG", id="beyond-the-last-index"),
        pytest.param(drawing(count=3, labels=(0, 1)), "LABELS_WRONG", id="two-labels-for-three-rows"),
        pytest.param(drawing(labels=()), "LABELS_WRONG", id="no-label-on-a-conditional-model"),
        pytest.param(drawing(labels=(3,)), "LABEL_UNKNOWN", id="label-beyond-the-classes"),
        pytest.param(drawing(dtype=99), "DTYPE_WRONG", id="unknown-dtype"),
        pytest.param(drawing(count=65_537), "ITEM_TOO_LARGE", id="more-rows-than-a-call-has"),
        pytest.param(reading(toy_images(1)), "KIND_WRONG", id="tensor-to-sample"),
        pytest.param(choosing(3, 9, count=3), "INDICES_WRONG", id="two-indices-for-three-rows"),
        pytest.param(choosing(3, 9, start=1), "INDICES_WRONG", id="indices-beside-a-start"),
        pytest.param(worker_pb2.WorkerItem(), "KIND_WRONG", id="neither-range-nor-tensor"),
    ],
)
def test_a_bad_range_is_refused_alone(worker: Worker, item: worker_pb2.WorkerItem, reason: str) -> None:
    reply = ask(worker, request(drawing(), item, drawing()))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason


def _image_item(dims: tuple[int, ...], dtype: int, size: int) -> worker_pb2.WorkerItem:
    return worker_pb2.WorkerItem(tensor=worker_pb2.Tensor(dims=dims, dtype=dtype, data=bytes(size)))


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        pytest.param(_image_item((1, 4, 4, 1), 1, 15), "DATA_WRONG", id="bytes-missing"),
        pytest.param(_image_item((1, 4, 4, 1), 2, 16), "DATA_WRONG", id="uint8-bytes-called-float32"),
        pytest.param(_image_item((1, 4, 4, 3), 1, 48), "SHAPE_WRONG", id="three-channels"),
        pytest.param(_image_item((0, 4, 4, 1), 1, 0), "SHAPE_WRONG", id="no-rows"),
        pytest.param(_image_item((), 1, 0), "SHAPE_WRONG", id="no-dims"),
        pytest.param(_image_item((1, 4, 4, 1), 0, 16), "DTYPE_WRONG", id="no-dtype"),
        pytest.param(reading(np.full((1, 4, 4, 1), np.nan, "<f4")), "PIXELS_NOT_FINITE", id="nan-pixel"),
        pytest.param(reading(np.full((1, 4, 4, 1), np.inf, "<f4")), "PIXELS_NOT_FINITE", id="infinite-pixel"),
        pytest.param(drawing(), "KIND_WRONG", id="range-to-read"),
    ],
)
def test_a_bad_tensor_is_refused_alone(classifier: Worker, item: worker_pb2.WorkerItem, reason: str) -> None:
    good = reading(toy_images(1))
    reply = ask(classifier, request(good, item, good, operation=CLASSIFY))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason


def test_probabilities_cannot_be_uint8(classifier: Worker) -> None:
    item = reading(toy_images(1))
    item.dtype = model_pb2.DTYPE_UINT8
    assert codes(ask(classifier, request(item, operation=CLASSIFY))) == [code_pb2.INVALID_ARGUMENT]


def test_a_label_on_an_unconditional_model_is_refused(unconditional: Worker) -> None:
    reply = ask(unconditional, request(drawing(labels=(0,))))
    assert reason_of(reply.items[0].status) == "LABEL_NOT_TAKEN"


def test_items_beyond_a_full_call_are_refused_and_those_before_are_kept(worker: Worker) -> None:
    reply = ask(worker, request(drawing(count=8), drawing(count=65_530), drawing(count=2)))
    assert codes(reply) == [0, code_pb2.RESOURCE_EXHAUSTED, 0]


def test_a_refused_item_takes_no_capacity_from_later_ones(worker: Worker) -> None:
    refused = drawing(count=65_536, labels=(3,))
    assert codes(ask(worker, request(refused, drawing()))) == [code_pb2.INVALID_ARGUMENT, 0]


def test_refused_images_take_no_capacity_from_later_ones(classifier: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.worker.worker.CallCapacity", lambda: CallCapacity(rows=2))
    refused, good = reading(np.full((2, 4, 4, 1), np.nan, "<f4")), reading(toy_images(2))
    assert codes(ask(classifier, request(refused, good, operation=CLASSIFY))) == [code_pb2.INVALID_ARGUMENT, 0]


def test_a_status_message_has_the_remedy(worker: Worker) -> None:
    status = ask(worker, request(drawing(labels=(3,)))).items[0].status
    assert status.message == "label 3 is unknown; labels are 0 to 2"


def test_an_operation_the_model_lacks_fails_every_item(worker: Worker) -> None:
    reply = ask(worker, request(drawing(), drawing(), operation=EMBED))
    assert codes(reply) == [code_pb2.FAILED_PRECONDITION] * 2


def test_an_unspecified_operation_fails_every_item(worker: Worker) -> None:
    reply = ask(worker, request(drawing(), operation=model_pb2.OPERATION_UNSPECIFIED))
    assert codes(reply) == [code_pb2.FAILED_PRECONDITION]


def test_other_numerics_than_the_workers_fail_every_item(worker: Worker) -> None:
    message = request(drawing())
    message.numerics = "cpu-other"
    assert reason_of(ask(worker, message).items[0].status) == "NUMERICS_MISMATCH"


def test_another_digest_than_the_loaded_one_fails_every_item(worker: Worker) -> None:
    message = request(drawing())
    message.model_digest = "sha256:" + "0" * 64
    assert reason_of(ask(worker, message).items[0].status) == "DIGEST_MISMATCH"


def test_the_workers_own_numerics_and_digest_may_be_pinned(worker: Worker) -> None:
    reply = ask(worker, request(drawing()))
    message = request(drawing())
    message.numerics, message.model_digest = reply.numerics, reply.model_digest
    assert codes(ask(worker, message)) == [0]


@pytest.mark.parametrize(("name", "value"), [("temperature", 1.0), ("truncation", 9.0), ("truncation", float("nan"))])
def test_a_parameter_the_card_does_not_allow_fails_every_item(worker: Worker, name: str, value: float) -> None:
    message = request(drawing(), drawing())
    setattr(message.parameters, name, value)
    assert codes(ask(worker, message)) == [code_pb2.INVALID_ARGUMENT] * 2


@pytest.mark.parametrize("data", [b"\xff\xff\xff", None], ids=["not-a-message", "no-bytes"])
def test_unreadable_bytes_get_one_invalid_argument(worker: Worker, data: bytes | None) -> None:
    reply = worker_pb2.WorkerReply.FromString(worker.handle(data))
    assert codes(reply) == [code_pb2.INVALID_ARGUMENT]


@pytest.mark.parametrize(
    ("seed", "code"),
    [
        pytest.param(RAISES, code_pb2.INTERNAL, id="raises"),
        pytest.param(GIVES_WRONG_SHAPE, code_pb2.INTERNAL, id="wrong-shape"),
        pytest.param(HAS_NO_MEMORY, code_pb2.RESOURCE_EXHAUSTED, id="out-of-memory"),
    ],
)
def test_a_failing_item_leaves_co_batched_items_unharmed(worker: Worker, seed: int, code: int) -> None:
    others = [drawing(seed=1, count=3), drawing(seed=2, count=3)]
    expected = [item.value.data for item in ask(worker, request(*others)).items]
    reply = ask(worker, request(others[0], drawing(seed=seed, count=3), others[1]))
    assert codes(reply) == [0, code, 0]
    assert [reply.items[0].value.data, reply.items[2].value.data] == expected


def test_a_batch_without_memory_is_run_again_in_smaller_sizes(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = with_seconds(load(toy_folder, GreedySampler), _LARGEST_BEST)
    message = request(drawing(count=40), drawing(seed=2, count=3))
    expected = [item.value.data for item in ask(greedy, message).items]
    monkeypatch.setattr(GreedySampler, "is_greedy", True)
    reply = ask(greedy, message)
    assert [item.value.data for item in reply.items] == expected
    assert list(reply.timings.batch_sizes) == [32, 16, 8, 8, 8, 8, 8, 8]


def test_a_new_call_starts_with_the_largest_size_again(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = with_seconds(load(toy_folder, GreedySampler), _LARGEST_BEST)
    monkeypatch.setattr(GreedySampler, "is_greedy", True)
    ask(greedy, request(drawing(count=32)))
    monkeypatch.setattr(GreedySampler, "is_greedy", False)
    assert list(ask(greedy, request(drawing(count=32))).timings.batch_sizes) == [32]


def test_an_internal_status_names_the_request_and_hides_the_error(worker: Worker) -> None:
    message = ask(worker, request(drawing(seed=RAISES))).items[0].status.message
    assert message == "the model failed on this item; the worker's log has more under request 'r-1'"


def test_the_traceback_goes_to_the_log(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    ask(worker, request(drawing(seed=RAISES)))
    assert "a secret of the model" in caplog.text
    assert "'r-1'" in caplog.text


def test_a_row_that_is_not_finite_is_zeroed_and_reported(worker: Worker) -> None:
    reply = ask(worker, request(drawing(count=2), drawing(seed=GIVES_NAN, count=2)))
    failed = reply.items[1]
    assert [(error.row, error.status.code) for error in failed.row_errors] == [(0, 13), (1, 13)]
    assert failed.value.data == bytes(128)


def test_a_row_that_is_not_finite_leaves_co_batched_rows_unharmed(worker: Worker) -> None:
    alone = ask(worker, request(drawing(count=2))).items[0].value.data
    reply = ask(worker, request(drawing(count=2), drawing(seed=GIVES_NAN)))
    assert (reply.items[0].value.data, len(reply.items[0].row_errors)) == (alone, 0)


@pytest.mark.parametrize("dtype", [model_pb2.DTYPE_UINT8, model_pb2.DTYPE_FLOAT32], ids=["uint8", "float32"])
def test_a_row_beyond_the_cards_range_is_zeroed_and_reported(worker: Worker, dtype: int) -> None:
    reply = ask(worker, request(drawing(count=2), drawing(seed=GIVES_TOO_MUCH, count=2, dtype=dtype)))
    failed = reply.items[1]
    assert [(error.row, error.status.code) for error in failed.row_errors] == [(0, 13), (1, 13)]
    assert reason_of(failed.row_errors[0].status) == "OUT_OF_RANGE"
    assert not any(failed.value.data)


def test_embeddings_may_have_any_range(classifier: Worker) -> None:
    reply = ask(classifier, request(reading(toy_images(5)), operation=EMBED))
    assert (np.frombuffer(reply.items[0].value.data, "<f4").min() < 0, len(reply.items[0].row_errors)) == (True, 0)


def test_a_deadline_that_has_passed_stops_every_item(worker: Worker) -> None:
    message = request(drawing(), drawing())
    message.deadline_unix_ms = int(time.time() * 1000) - 1
    assert codes(ask(worker, message)) == [code_pb2.DEADLINE_EXCEEDED] * 2


def test_items_done_before_the_deadline_keep_their_values(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    _when_slow(monkeypatch, lambda: now.__setitem__(0, 2000.0))
    worker = with_seconds(worker, _LARGEST_BEST)
    message = request(drawing(count=32), drawing(seed=IS_SLOW, count=32), drawing(seed=3))
    message.deadline_unix_ms = 1_500_000
    assert codes(ask(worker, message)) == [0, code_pb2.DEADLINE_EXCEEDED, code_pb2.DEADLINE_EXCEEDED]


def test_a_lost_device_ends_the_process(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(BaseException):
        pass

    def leave(status: int) -> None:
        assert status == 1
        raise Left

    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left):
        ask(worker, request(drawing(seed=LOSES_DEVICE)))


def test_describe_takes_no_items(worker: Worker) -> None:
    reply = ask(worker, request(drawing(), operation=model_pb2.OPERATION_DESCRIBE))
    assert codes(reply) == [code_pb2.INVALID_ARGUMENT]


def test_an_error_of_the_worker_is_internal(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("handlers.worker.worker.read_draw", fail)
    assert codes(ask(worker, request(drawing(), drawing()))) == [code_pb2.INTERNAL] * 2


def _when_slow(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    monkeypatch.setattr(FaultySampler, "when_slow", staticmethod(action))
