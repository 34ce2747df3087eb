"""Conversion of calls to worker.v1 requests, and of replies to domain values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.calls import Call, Item, ManipulationItem, RangeItem, Rows, SamplerState, TensorItem
from service.domain import Dtype, ModelKey, Operation, Parameters, Target
from service.errors import WorkerFault
from service.workers.torchserve.messages import call_to_request, reply_to_domain

TARGET = Target(model=ModelKey(name="toy", version="1", digest="sha256:0"), numerics="avx2")


def call(*items: Item, **fields) -> Call:
    settings = {"operation": Operation.SAMPLE, "parameters": Parameters()} | fields
    return Call(target=TARGET, items=items, **settings)


def drawn(labels: list[int] | None, dtype: Dtype = Dtype.UINT8) -> RangeItem:
    sent = None if labels is None else np.array(labels, np.int64)
    return RangeItem(seed=2**64 - 1, start_index=2**40, count=len(labels or [0]), labels=sent, dtype=dtype)


@pytest.mark.parametrize(
    ("labels", "sent"),
    [([7, 7, 7], [7]), ([7, 7, 8], [7, 7, 8]), ([7], [7]), (None, [])],
    ids=["all-the-same", "different", "a-single-one", "unconditional"],
)
def test_equal_labels_are_sent_once(labels: list[int] | None, sent: list[int]) -> None:
    item = call_to_request(call(drawn(labels))).items[0].range
    assert (list(item.labels), item.count) == (sent, len(labels or [0]))


def test_an_address_is_sent_completely() -> None:
    item = call_to_request(call(drawn([1]))).items[0].range
    assert (item.seed, item.start_index) == (2**64 - 1, 2**40)


@pytest.mark.parametrize("dtype", Dtype, ids=lambda each: each.name)
def test_the_requested_dtype_is_sent(dtype: Dtype) -> None:
    sent = call_to_request(call(drawn([1], dtype))).items[0].dtype
    assert model_pb2.Dtype.Name(sent) == f"DTYPE_{dtype.name}"


@pytest.mark.parametrize("operation", Operation, ids=lambda each: each.name)
def test_every_operation_is_sent_by_its_name(operation: Operation) -> None:
    sent = call_to_request(call(drawn([1]), operation=operation)).operation
    assert model_pb2.Operation.Name(sent) == f"OPERATION_{operation.name}"


def test_calls_do_not_share_parameters() -> None:
    warm, cold = Parameters(temperature=1.5, top_k=0), Parameters(truncation=0.5)
    first, second = (call_to_request(call(drawn([1]), parameters=each)).parameters for each in (warm, cold))
    assert (first.temperature, first.HasField("top_k"), first.HasField("truncation")) == (1.5, True, False)
    assert (second.truncation, second.HasField("temperature"), second.HasField("top_k")) == (0.5, False, False)


def test_rows_to_classify_are_sent_with_their_shape() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
    tensor = call_to_request(call(TensorItem(rows=rows))).items[0].tensor
    assert (list(tensor.dims), tensor.dtype, tensor.data) == ([2, 2, 2, 1], model_pb2.DTYPE_FLOAT32, rows.tobytes())


STATE = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def test_a_resumed_draw_is_sent_with_its_state() -> None:
    item = dataclasses.replace(drawn([1]), resume_from=SamplerState(next_step=7, state=STATE))
    sent = call_to_request(call(item, step_limit=5))
    carry = sent.items[0].carry
    assert (sent.step_limit, carry.next_step, list(carry.state.dims)) == (5, 7, [1, 2, 3])
    assert carry.state.data == STATE.tobytes()
    assert not call_to_request(call(drawn([1]))).items[0].HasField("carry")


def preempted(state: worker_pb2.Tensor) -> worker_pb2.WorkerReply:
    return worker_pb2.WorkerReply(
        items=[worker_pb2.WorkerOutcome(carry=worker_pb2.Carry(next_step=7, state=state))],
        timings=worker_pb2.Timings(),
    )


def test_a_preempted_draw_is_returned_with_its_state() -> None:
    sent = worker_pb2.Tensor(dims=[1, 2, 3], dtype=model_pb2.DTYPE_FLOAT32, data=STATE.tobytes())
    (carry,) = reply_to_domain(call(drawn([1])), preempted(sent)).outcomes
    assert isinstance(carry, SamplerState)
    assert carry.next_step == 7
    assert np.array_equal(carry.state, STATE)


@pytest.mark.parametrize(
    "state",
    [
        worker_pb2.Tensor(dims=[2, 3], dtype=model_pb2.DTYPE_FLOAT32, data=STATE.tobytes()),
        worker_pb2.Tensor(dims=[1, 5], dtype=model_pb2.DTYPE_FLOAT32, data=STATE.tobytes()),
        worker_pb2.Tensor(dims=[1, 6], dtype=model_pb2.DTYPE_UINT8, data=bytes(6)),
        worker_pb2.Tensor(),
    ],
    ids=["other rows", "other size", "no floats", "nothing"],
)
def test_a_state_that_does_not_fit_is_a_worker_fault(state: worker_pb2.Tensor) -> None:
    with pytest.raises(WorkerFault):
        reply_to_domain(call(drawn([1])), preempted(state))


def test_indices_that_are_not_consecutive_are_sent_individually() -> None:
    item = dataclasses.replace(drawn([1, 2]), start_index=0, indices=np.array([2**64 - 1, 5], np.uint64))
    sent = call_to_request(call(item)).items[0].range
    assert (list(sent.indices), sent.start_index, sent.count) == ([2**64 - 1, 5], 0, 2)
    assert not call_to_request(call(drawn([1, 2]))).items[0].range.indices


PICTURES = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
TABLE = np.array([[0.0, 1.5], [2.0, -1.0]], np.float32)


def manipulated() -> ManipulationItem:
    return ManipulationItem(rows=PICTURES, table=TABLE, seed=2**64 - 1, indices=np.array([9, 4], np.uint64))


def test_a_manipulation_is_sent_completely() -> None:
    item = call_to_request(call(manipulated(), operation=Operation.TRANSFORM)).items[0]
    sent = item.manipulation
    assert (list(sent.images.dims), sent.images.dtype) == ([2, 2, 3, 1], model_pb2.DTYPE_UINT8)
    assert (list(sent.parameters.dims), sent.parameters.dtype) == ([2, 2], model_pb2.DTYPE_FLOAT32)
    assert (sent.images.data, sent.parameters.data) == (PICTURES.tobytes(), TABLE.tobytes())
    assert (sent.addresses.seed, sent.addresses.count, list(sent.addresses.indices)) == (2**64 - 1, 2, [9, 4])
    assert item.dtype == model_pb2.DTYPE_UINT8


def answered(tensor: worker_pb2.Tensor) -> worker_pb2.WorkerReply:
    return worker_pb2.WorkerReply(items=[worker_pb2.WorkerOutcome(value=tensor)], timings=worker_pb2.Timings())


def test_a_transformed_image_keeps_its_shape() -> None:
    sent = worker_pb2.Tensor(dims=[2, 2, 3, 1], dtype=model_pb2.DTYPE_UINT8, data=PICTURES.tobytes())
    (rows,) = reply_to_domain(call(manipulated(), operation=Operation.TRANSFORM), answered(sent)).outcomes
    assert isinstance(rows, Rows)
    assert np.array_equal(rows.array, PICTURES)


@pytest.mark.parametrize(
    ("dims", "dtype", "size"),
    [([2, 3, 2, 1], model_pb2.DTYPE_UINT8, 12), ([2, 2, 3, 1], model_pb2.DTYPE_FLOAT32, 48),
     ([1, 2, 3, 1], model_pb2.DTYPE_UINT8, 6)],
    ids=["turned", "floats", "a row less"],
)  # fmt: skip
def test_a_transformed_image_of_another_kind_is_a_worker_fault(dims, dtype, size) -> None:
    sent = worker_pb2.Tensor(dims=dims, dtype=dtype, data=bytes(size))
    with pytest.raises(WorkerFault):
        reply_to_domain(call(manipulated(), operation=Operation.TRANSFORM), answered(sent))
