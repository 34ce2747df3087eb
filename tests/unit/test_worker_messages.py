"""What a call says to a worker, and no more than it must."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.domain import Call, Carry, Dtype, ModelKey, Operation, Parameters, RangeItem, Target, TensorItem
from service.errors import WorkerFault
from service.workers.torchserve.messages import call_to_request, reply_to_domain

TARGET = Target(model=ModelKey(name="toy", version="1", digest="sha256:0"), numerics="avx2")


def call(*items: RangeItem | TensorItem, **fields) -> Call:
    settings = {"operation": Operation.SAMPLE, "parameters": Parameters()} | fields
    return Call(target=TARGET, items=items, **settings)


def drawn(labels: list[int] | None, dtype: Dtype = Dtype.UINT8) -> RangeItem:
    told = None if labels is None else np.array(labels, np.int64)
    return RangeItem(seed=2**64 - 1, start_index=2**40, count=len(labels or [0]), labels=told, dtype=dtype)


@pytest.mark.parametrize(
    ("labels", "told"),
    [([7, 7, 7], [7]), ([7, 7, 8], [7, 7, 8]), ([7], [7]), (None, [])],
    ids=["all-the-same", "different", "a-single-one", "unconditional"],
)
def test_labels_are_told_once_when_they_are_all_the_same(labels: list[int] | None, told: list[int]) -> None:
    item = call_to_request(call(drawn(labels))).items[0].range
    assert (list(item.labels), item.count) == (told, len(labels or [0]))


def test_an_address_is_told_whole() -> None:
    item = call_to_request(call(drawn([1]))).items[0].range
    assert (item.seed, item.start_index) == (2**64 - 1, 2**40)


@pytest.mark.parametrize("dtype", Dtype, ids=lambda each: each.name)
def test_the_dtype_wanted_is_told(dtype: Dtype) -> None:
    told = call_to_request(call(drawn([1], dtype))).items[0].dtype
    assert model_pb2.Dtype.Name(told) == f"DTYPE_{dtype.name}"


@pytest.mark.parametrize("operation", Operation, ids=lambda each: each.name)
def test_every_operation_has_its_own_name(operation: Operation) -> None:
    told = call_to_request(call(drawn([1]), operation=operation)).operation
    assert model_pb2.Operation.Name(told) == f"OPERATION_{operation.name}"


def test_parameters_of_one_call_are_not_those_of_the_next() -> None:
    warm, cold = Parameters(temperature=1.5, top_k=0), Parameters(truncation=0.5)
    first, second = (call_to_request(call(drawn([1]), parameters=each)).parameters for each in (warm, cold))
    assert (first.temperature, first.HasField("top_k"), first.HasField("truncation")) == (1.5, True, False)
    assert (second.truncation, second.HasField("temperature"), second.HasField("top_k")) == (0.5, False, False)


def test_rows_to_be_read_are_told_with_their_shape() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
    tensor = call_to_request(call(TensorItem(rows=rows))).items[0].tensor
    assert (list(tensor.dims), tensor.dtype, tensor.data) == ([2, 2, 2, 1], model_pb2.DTYPE_FLOAT32, rows.tobytes())


STATE = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def test_a_draw_that_goes_on_is_told_where_it_was_left() -> None:
    item = dataclasses.replace(drawn([1]), carry=Carry(next_step=7, state=STATE))
    told = call_to_request(call(item, step_limit=5))
    carry = told.items[0].carry
    assert (told.step_limit, carry.next_step, list(carry.state.dims)) == (5, 7, [1, 2, 3])
    assert carry.state.data == STATE.tobytes()
    assert not call_to_request(call(drawn([1]))).items[0].HasField("carry")


def cut(state: worker_pb2.Tensor) -> worker_pb2.WorkerReply:
    return worker_pb2.WorkerReply(
        items=[worker_pb2.WorkerOutcome(carry=worker_pb2.Carry(next_step=7, state=state))],
        timings=worker_pb2.Timings(),
    )


def test_a_draw_that_was_cut_comes_back_with_its_state() -> None:
    told = worker_pb2.Tensor(dims=[1, 2, 3], dtype=model_pb2.DTYPE_FLOAT32, data=STATE.tobytes())
    (carry,) = reply_to_domain(call(drawn([1])), cut(told)).outcomes
    assert isinstance(carry, Carry)
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
def test_a_state_that_does_not_fit_is_the_workers_fault(state: worker_pb2.Tensor) -> None:
    with pytest.raises(WorkerFault):
        reply_to_domain(call(drawn([1])), cut(state))
