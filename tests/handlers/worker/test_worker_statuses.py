"""A worker's answers: statuses, each for the one item at fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import EncodeError
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
    codes,
    image_item,
    indexed_item,
    load,
    reason_of,
    request,
    sample_item,
    send,
    toy_images,
    with_seconds,
)

_LARGEST_BEST = {8: 0.9e-9, 16: 1.0e-9, 32: 1.1e-9}  # less than any batch takes: what is seen only adds to it
CLASSIFY, EMBED = model_pb2.OPERATION_CLASSIFY, model_pb2.OPERATION_EMBED


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        pytest.param(sample_item(count=0), "COUNT_WRONG", id="count-zero"),
        pytest.param(sample_item(start=2**64 - 1, count=2), "INDEX_WRONG", id="beyond-the-last-index"),
        pytest.param(sample_item(count=3, labels=(0, 1)), "LABELS_WRONG", id="two-labels-for-three-rows"),
        pytest.param(sample_item(labels=()), "LABELS_WRONG", id="no-label-on-a-conditional-model"),
        pytest.param(sample_item(labels=(3,)), "LABEL_UNKNOWN", id="label-beyond-the-classes"),
        pytest.param(sample_item(dtype=99), "DTYPE_WRONG", id="unknown-dtype"),
        pytest.param(sample_item(count=65_537), "ITEM_TOO_LARGE", id="more-rows-than-a-call-has"),
        pytest.param(image_item(toy_images(1)), "KIND_WRONG", id="tensor-to-sample"),
        pytest.param(indexed_item(3, 9, count=3), "INDICES_WRONG", id="two-indices-for-three-rows"),
        pytest.param(indexed_item(3, 9, start=1), "INDICES_WRONG", id="indices-and-a-start"),
        pytest.param(worker_pb2.WorkerItem(), "KIND_WRONG", id="neither-range-nor-tensor"),
    ],
)
def test_a_bad_range_is_refused_alone(worker: Worker, item: worker_pb2.WorkerItem, reason: str) -> None:
    reply = send(worker, request(sample_item(), item, sample_item()))
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
        pytest.param(image_item(np.full((1, 4, 4, 1), np.nan, "<f4")), "PIXELS_NOT_FINITE", id="nan-pixel"),
        pytest.param(image_item(np.full((1, 4, 4, 1), np.inf, "<f4")), "PIXELS_NOT_FINITE", id="infinite-pixel"),
        pytest.param(sample_item(), "KIND_WRONG", id="range-to-read"),
    ],
)
def test_a_bad_tensor_is_refused_alone(classifier: Worker, item: worker_pb2.WorkerItem, reason: str) -> None:
    good = image_item(toy_images(1))
    reply = send(classifier, request(good, item, good, operation=CLASSIFY))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason


def test_probabilities_cannot_be_uint8(classifier: Worker) -> None:
    item = image_item(toy_images(1))
    item.dtype = model_pb2.DTYPE_UINT8
    assert codes(send(classifier, request(item, operation=CLASSIFY))) == [code_pb2.INVALID_ARGUMENT]


def test_a_label_on_an_unconditional_model_is_refused(unconditional: Worker) -> None:
    reply = send(unconditional, request(sample_item(labels=(0,))))
    assert reason_of(reply.items[0].status) == "LABEL_NOT_TAKEN"


def test_items_beyond_a_full_call_are_refused_and_those_before_are_kept(worker: Worker) -> None:
    reply = send(worker, request(sample_item(count=8), sample_item(count=65_530), sample_item(count=2)))
    assert codes(reply) == [0, code_pb2.RESOURCE_EXHAUSTED, 0]


def test_a_refused_item_takes_no_capacity_from_later_ones(worker: Worker) -> None:
    refused = sample_item(count=65_536, labels=(3,))
    assert codes(send(worker, request(refused, sample_item()))) == [code_pb2.INVALID_ARGUMENT, 0]


def test_refused_images_take_no_capacity_from_later_ones(classifier: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.worker.worker.CallCapacity", lambda: CallCapacity(rows=2))
    refused, good = image_item(np.full((2, 4, 4, 1), np.nan, "<f4")), image_item(toy_images(2))
    assert codes(send(classifier, request(refused, good, operation=CLASSIFY))) == [code_pb2.INVALID_ARGUMENT, 0]


def test_a_status_message_has_the_remedy(worker: Worker) -> None:
    status = send(worker, request(sample_item(labels=(3,)))).items[0].status
    assert status.message == "label 3 is unknown; labels are 0 to 2"


def test_an_operation_the_model_lacks_fails_every_item(worker: Worker) -> None:
    reply = send(worker, request(sample_item(), sample_item(), operation=EMBED))
    assert codes(reply) == [code_pb2.FAILED_PRECONDITION] * 2


def test_an_unspecified_operation_fails_every_item(worker: Worker) -> None:
    reply = send(worker, request(sample_item(), operation=model_pb2.OPERATION_UNSPECIFIED))
    assert codes(reply) == [code_pb2.FAILED_PRECONDITION]


def test_other_numerics_than_the_workers_fail_every_item(worker: Worker) -> None:
    message = request(sample_item())
    message.numerics = "cpu-other"
    assert reason_of(send(worker, message).items[0].status) == "NUMERICS_MISMATCH"


def test_another_digest_than_the_loaded_one_fails_every_item(worker: Worker) -> None:
    message = request(sample_item())
    message.model_digest = "sha256:" + "0" * 64
    assert reason_of(send(worker, message).items[0].status) == "DIGEST_MISMATCH"


def test_the_workers_own_numerics_and_digest_may_be_pinned(worker: Worker) -> None:
    reply = send(worker, request(sample_item()))
    message = request(sample_item())
    message.numerics, message.model_digest = reply.numerics, reply.model_digest
    assert codes(send(worker, message)) == [0]


@pytest.mark.parametrize(("name", "value"), [("temperature", 1.0), ("truncation", 9.0), ("truncation", float("nan"))])
def test_a_parameter_the_card_does_not_allow_fails_every_item(worker: Worker, name: str, value: float) -> None:
    message = request(sample_item(), sample_item())
    setattr(message.parameters, name, value)
    assert codes(send(worker, message)) == [code_pb2.INVALID_ARGUMENT] * 2


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
    others = [sample_item(seed=1, count=3), sample_item(seed=2, count=3)]
    expected = [item.value.data for item in send(worker, request(*others)).items]
    reply = send(worker, request(others[0], sample_item(seed=seed, count=3), others[1]))
    assert codes(reply) == [0, code, 0]
    assert [reply.items[0].value.data, reply.items[2].value.data] == expected


def test_a_batch_without_memory_is_run_again_in_smaller_sizes(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = with_seconds(load(toy_folder, GreedySampler), _LARGEST_BEST)
    message = request(sample_item(count=40), sample_item(seed=2, count=3))
    expected = [item.value.data for item in send(greedy, message).items]
    monkeypatch.setattr(GreedySampler, "is_greedy", True)
    reply = send(greedy, message)
    assert [item.value.data for item in reply.items] == expected
    assert list(reply.timings.batch_sizes) == [32, 16, 8, 8, 8, 8, 8, 8]


def test_a_new_call_starts_with_the_largest_size_again(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = with_seconds(load(toy_folder, GreedySampler), _LARGEST_BEST)
    monkeypatch.setattr(GreedySampler, "is_greedy", True)
    send(greedy, request(sample_item(count=32)))
    monkeypatch.setattr(GreedySampler, "is_greedy", False)
    assert list(send(greedy, request(sample_item(count=32))).timings.batch_sizes) == [32]


def test_an_internal_status_names_the_request_and_hides_the_error(worker: Worker) -> None:
    message = send(worker, request(sample_item(seed=RAISES))).items[0].status.message
    assert message == "the model failed on this item; the worker's log has more under request 'r-1'"


def test_the_traceback_goes_to_the_log(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    send(worker, request(sample_item(seed=RAISES)))
    assert "a secret of the model" in caplog.text
    assert "'r-1'" in caplog.text


def test_a_row_that_is_not_finite_is_zeroed_and_reported(worker: Worker) -> None:
    reply = send(worker, request(sample_item(count=2), sample_item(seed=GIVES_NAN, count=2)))
    failed = reply.items[1]
    assert [(error.row, error.status.code) for error in failed.row_errors] == [(0, 13), (1, 13)]
    assert failed.value.data == bytes(128)


def test_a_row_that_is_not_finite_leaves_co_batched_rows_unharmed(worker: Worker) -> None:
    alone = send(worker, request(sample_item(count=2))).items[0].value.data
    reply = send(worker, request(sample_item(count=2), sample_item(seed=GIVES_NAN)))
    assert (reply.items[0].value.data, len(reply.items[0].row_errors)) == (alone, 0)


@pytest.mark.parametrize("dtype", [model_pb2.DTYPE_UINT8, model_pb2.DTYPE_FLOAT32], ids=["uint8", "float32"])
def test_a_row_beyond_the_cards_range_is_zeroed_and_reported(worker: Worker, dtype: int) -> None:
    reply = send(worker, request(sample_item(count=2), sample_item(seed=GIVES_TOO_MUCH, count=2, dtype=dtype)))
    failed = reply.items[1]
    assert [(error.row, error.status.code) for error in failed.row_errors] == [(0, 13), (1, 13)]
    assert reason_of(failed.row_errors[0].status) == "OUT_OF_RANGE"
    assert not any(failed.value.data)


def test_embeddings_may_have_any_range(classifier: Worker) -> None:
    reply = send(classifier, request(image_item(toy_images(5)), operation=EMBED))
    assert (np.frombuffer(reply.items[0].value.data, "<f4").min() < 0, len(reply.items[0].row_errors)) == (True, 0)


def test_a_deadline_that_has_passed_stops_every_item(worker: Worker) -> None:
    message = request(sample_item(), sample_item())
    message.deadline_unix_ms = int(time.time() * 1000) - 1
    assert codes(send(worker, message)) == [code_pb2.DEADLINE_EXCEEDED] * 2


def test_items_done_before_the_deadline_keep_their_values(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    _when_slow(monkeypatch, lambda: now.__setitem__(0, 2000.0))
    worker = with_seconds(worker, _LARGEST_BEST)
    message = request(sample_item(count=32), sample_item(seed=IS_SLOW, count=32), sample_item(seed=3))
    message.deadline_unix_ms = 1_500_000
    assert codes(send(worker, message)) == [0, code_pb2.DEADLINE_EXCEEDED, code_pb2.DEADLINE_EXCEEDED]


def test_a_lost_device_ends_the_process(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(BaseException):
        pass

    def leave(status: int) -> None:
        assert status == 1
        raise Left

    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left):
        send(worker, request(sample_item(seed=LOSES_DEVICE)))


def test_describe_takes_no_items(worker: Worker) -> None:
    reply = send(worker, request(sample_item(), operation=model_pb2.OPERATION_DESCRIBE))
    assert codes(reply) == [code_pb2.INVALID_ARGUMENT]


def test_an_error_of_the_worker_is_internal(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("handlers.worker.worker.read_draw", fail)
    assert codes(send(worker, request(sample_item(), sample_item()))) == [code_pb2.INTERNAL] * 2


def test_a_reply_that_cannot_be_serialised_is_internal(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    class TooLarge:
        def SerializeToString(self) -> bytes:
            raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(Worker, "_answer", lambda *_: TooLarge())
    assert codes(send(worker, request(sample_item(), sample_item()))) == [code_pb2.INTERNAL] * 2


def _when_slow(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    monkeypatch.setattr(FaultySampler, "when_slow", staticmethod(action))
