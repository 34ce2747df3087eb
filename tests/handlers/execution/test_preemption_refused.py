"""Carries that cannot be gone on with, and states that take too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.rpc import code_pb2

from fount.v1 import model_pb2
from handlers.worker.tensors import CallCapacity
from handlers.worker.worker import Worker
from tests.handlers.stepping_toys import (
    CHANNELS,
    call,
    preempt,
)
from tests.handlers.toys import SIDE, codes, image_item, reason_of, request, sample_item, send, toy_images

UINT8 = model_pb2.DTYPE_UINT8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda carry: setattr(carry, "next_step", 0), "STEP_WRONG", id="step-0"),
        pytest.param(lambda carry: setattr(carry, "next_step", 6), "STEP_WRONG", id="the-step-after-the-last"),
        pytest.param(lambda carry: setattr(carry, "next_step", 2**32 - 1), "STEP_WRONG", id="a-step-far-off"),
        pytest.param(lambda carry: setattr(carry, "next_step", 3), "STEP_NOT_SHARED", id="another-step"),
        pytest.param(lambda carry: carry.ClearField("state"), "DTYPE_WRONG", id="no-state"),
        pytest.param(lambda carry: setattr(carry.state, "dtype", UINT8), "DTYPE_WRONG", id="uint8-state"),
        pytest.param(lambda carry: carry.state.dims.append(1), "SHAPE_WRONG", id="one-extent-more"),
        pytest.param(lambda carry: carry.state.dims.__setitem__(0, 2), "SHAPE_WRONG", id="a-row-less"),
        pytest.param(lambda carry: carry.state.dims.__setitem__(1, 1), "SHAPE_WRONG", id="other-channels"),
        pytest.param(lambda carry: setattr(carry.state, "data", b"1234"), "DATA_WRONG", id="bytes-missing"),
    ],
)
def test_a_bad_carry_is_refused_alone(stepped: Worker, change: Callable[[Any], object], reason: str) -> None:
    good, bad = (preempt(stepped, sample_item(count=3)) for _ in range(2))
    change(bad.carry)
    reply = send(stepped, request(good, bad, good))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason


def test_a_new_draw_cannot_join_resumed_ones(stepped: Worker) -> None:
    preempted = preempt(stepped, sample_item())
    assert codes(send(stepped, request(preempted, sample_item()))) == [0, code_pb2.INVALID_ARGUMENT]
    assert codes(send(stepped, request(sample_item(), preempted))) == [0, code_pb2.INVALID_ARGUMENT]


def test_a_refused_carry_has_a_message(stepped: Worker) -> None:
    preempted = preempt(stepped, sample_item(count=3))
    preempted.carry.state.dims[1] = 1
    message = send(stepped, request(preempted)).items[0].status.message
    assert message == "carry.state.dims are [3, 1, 4, 4]; this item takes [3, 3, 4, 4]"


def test_a_model_without_steps_takes_no_carry(worker: Worker, stepped: Worker) -> None:
    reply = send(worker, request(preempt(stepped, sample_item()), sample_item()))
    assert codes(reply) == [code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[0].status) == "CARRY_NOT_TAKEN"


def test_reading_takes_no_carry(classifier: Worker) -> None:
    item = image_item(toy_images(1))
    item.carry.next_step = 1
    reply = send(classifier, request(item, operation=model_pb2.OPERATION_CLASSIFY))
    assert reason_of(reply.items[0].status) == "CARRY_NOT_TAKEN"


def test_states_count_towards_the_capacity_of_a_call(stepped: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, states = 3 * SIDE * SIDE, 3 * 4 * CHANNELS * SIDE * SIDE  # bytes: uint8 and float32
    item = sample_item(count=3, dtype=UINT8)
    preempted = preempt(stepped, item)
    monkeypatch.setattr("handlers.worker.worker.CallCapacity", lambda: CallCapacity(size_bytes=states - 1))
    assert pictures < states - 1
    assert codes(send(stepped, request(item))) == [0]
    for message in (call(item, limit=2), call(preempted, limit=2), call(preempted)):
        assert codes(send(stepped, message)) == [code_pb2.RESOURCE_EXHAUSTED]


def test_states_beyond_any_call_are_refused(stepped: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.worker.tensors.MAX_CALL_BYTES", 3 * 4 * CHANNELS * SIDE * SIDE - 1)
    reply = send(stepped, call(sample_item(count=3), limit=2))
    assert reason_of(reply.items[0].status) == "ITEM_TOO_LARGE"
