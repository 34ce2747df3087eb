"""Draws preempted between steps have the same bytes, wherever they are preempted and resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.rpc import code_pb2

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.worker.worker import Worker
from tests.handlers.stepping_toys import (
    CHANNELS,
    RAISES_LATE,
    STATE_IS_NAN,
    USUAL_STEPS,
    HalfToy,
    SteppedToy,
    call,
    draw_preempted,
    preempt,
    resumed,
    select_rows,
    values_of,
    write_stepped_folder,
)
from tests.handlers.toys import SIDE, codes, load, reason_of, request, sample_item, send, with_seconds

UINT8, FLOAT32 = model_pb2.DTYPE_UINT8, model_pb2.DTYPE_FLOAT32
ITEMS = [
    sample_item(count=5, labels=(0, 1, 2, 1, 0)),
    sample_item(9, 70, 30, labels=(2,)),
    sample_item(4, count=1, dtype=UINT8),
]


@pytest.fixture(scope="module", params=["fp32", "bf16", "bf16-states"])
def any_stepped(
    request: pytest.FixtureRequest, stepped_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Worker:
    """In either precision, and with states that a bf16 network left channels last."""
    if request.param == "fp32":
        return load(stepped_folder, SteppedToy)
    bf16 = {"FOUNT_WORKER_PRECISION": "bf16"}
    if request.param == "bf16":
        return load(stepped_folder, SteppedToy, bf16)
    return load(write_stepped_folder(tmp_path_factory.mktemp("half"), HalfToy(3)), HalfToy, bf16)


# --- The promise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [*([k] for k in range(1, 7)), [1] * 6, [2, 3], [1, 4, 1]],
    ids=lambda limits: "-".join(map(str, limits)),
)
def test_preemption_changes_no_byte(any_stepped: Worker, limits: list[int]) -> None:
    whole = values_of(send(any_stepped, call(*ITEMS, steps=7)))
    assert draw_preempted(any_stepped, ITEMS, limits, 7) == whole


def test_other_co_batched_rows_after_preemption_change_no_byte(any_stepped: Worker) -> None:
    whole = values_of(send(any_stepped, request(*ITEMS)))
    preempted = [preempt(any_stepped, item) for item in ITEMS]
    unrelated = [preempt(any_stepped, sample_item(50 + i, count=3, labels=(i,))) for i in range(3)]
    mixed = [unrelated[0], preempted[2], unrelated[1], preempted[1], preempted[0], unrelated[2]]
    values = values_of(send(any_stepped, request(*mixed)))
    assert [values[4], values[3], values[1]] == whole


def test_rows_resumed_alone_are_those_of_the_whole_draw(any_stepped: Worker) -> None:
    many = sample_item(2, count=37, labels=tuple(i % 3 for i in range(37)))
    preempted = preempt(any_stepped, many, limit=3)
    alone = [values_of(send(any_stepped, request(select_rows(preempted, row, 1))))[0] for row in range(37)]
    assert [b"".join(alone)] == values_of(send(any_stepped, request(many)))


def test_every_batch_size_resumes_alike(any_stepped: Worker) -> None:
    engine = any_stepped.model.engine
    assert engine is not None, any_stepped.model.reason
    item, sizes = sample_item(count=64), engine.profile.exec_batch_sizes
    preempted, whole = preempt(any_stepped, item), values_of(send(any_stepped, request(item)))
    for fastest in sizes:
        only = with_seconds(any_stepped, {size: 1e-9 if size == fastest else 1e9 for size in sizes})
        reply = send(only, request(preempted))
        assert (set(reply.timings.batch_sizes), values_of(reply)) == ({fastest}, whole)


def test_a_draw_resumes_in_a_worker_that_did_not_start_it(stepped_folder: Path, stepped: Worker) -> None:
    preempted = preempt(stepped, ITEMS[0])
    assert values_of(send(load(stepped_folder, SteppedToy), request(preempted))) == values_of(
        send(stepped, request(ITEMS[0]))
    )


def test_an_unconditional_draw_can_be_preempted(tmp_path: Path) -> None:
    unconditional = load(write_stepped_folder(tmp_path / "toy", SteppedToy(0), classes=0), SteppedToy)
    items = [sample_item(count=3, labels=())]
    assert draw_preempted(unconditional, items, [1, 2], 6) == values_of(send(unconditional, call(*items, steps=6)))


# --- What a cut is answered with --------------------------------------------------------------------------------------


def test_a_preempted_draw_is_answered_by_its_carry(stepped: Worker) -> None:
    carry = send(stepped, call(sample_item(count=5), limit=2)).items[0].carry
    dims = [5, CHANNELS, SIDE, SIDE]
    assert (carry.next_step, list(carry.state.dims), carry.state.dtype) == (2, dims, FLOAT32)
    assert len(carry.state.data) == 4 * 5 * CHANNELS * SIDE * SIDE


@pytest.mark.parametrize(
    ("limit", "outcome"), [(USUAL_STEPS - 1, "carry"), (USUAL_STEPS, "value"), (USUAL_STEPS + 1, "value")]
)
def test_a_draw_is_preempted_only_if_more_steps_remain(stepped: Worker, limit: int, outcome: str) -> None:
    assert send(stepped, call(sample_item(), limit=limit)).items[0].WhichOneof("outcome") == outcome


def test_a_call_takes_no_more_steps_than_it_may(stepped: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    preempted = preempt(stepped, sample_item())
    monkeypatch.setattr(SteppedToy, "when_stepping", staticmethod(taken.append))
    send(stepped, call(preempted, limit=3))
    assert taken == [2, 3, 4]


def test_the_steps_change_the_sample(stepped: Worker) -> None:
    few, many = (send(stepped, call(sample_item(), steps=steps)) for steps in (3, 20))
    assert values_of(few) != values_of(many)


def test_unset_steps_are_the_cards(stepped: Worker) -> None:
    assert values_of(send(stepped, call(sample_item()))) == values_of(
        send(stepped, call(sample_item(), steps=USUAL_STEPS))
    )


def test_the_label_matters_after_preemption(stepped: Worker) -> None:
    preempted = preempt(stepped, sample_item())
    other = worker_pb2.WorkerItem.FromString(preempted.SerializeToString())
    other.range.labels[0] = 2
    first, second = values_of(send(stepped, request(preempted, other)))
    assert first != second


def test_each_step_has_noise_of_its_own(stepped: Worker) -> None:
    preempted = preempt(stepped, sample_item(), limit=2)
    elsewhere = worker_pb2.WorkerItem.FromString(preempted.SerializeToString())
    elsewhere.carry.next_step = 3
    states = [send(stepped, call(item, limit=1)).items[0].carry.state.data for item in (preempted, elsewhere)]
    assert states[0] != states[1]


def test_a_model_without_steps_ignores_the_limit(worker: Worker) -> None:
    assert values_of(send(worker, call(sample_item(), limit=1))) == values_of(send(worker, request(sample_item())))


def test_a_preempted_batch_is_timed_as_if_it_took_all_steps(stepped: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(SteppedToy, "when_stepping", staticmethod(lambda _: now.__setitem__(0, now[0] + 1.0)))
    timed = with_seconds(stepped, {8: 6.0})
    assert send(timed, call(sample_item(), limit=2)).timings.compute_s == 2.0
    assert timed.model.engine is not None
    assert timed.model.engine.times["SAMPLE"].seconds == {8: 6.0}


# --- Faults -----------------------------------------------------------------------------------------------------------


def test_a_state_that_is_not_finite_fails_only_at_the_end(stepped: Worker) -> None:
    item = sample_item(STATE_IS_NAN, count=2)
    preempted = preempt(stepped, item, limit=4)
    assert np.isnan(np.frombuffer(preempted.carry.state.data, "<f4")).all()
    reply = send(stepped, request(preempted, preempt(stepped, sample_item(count=2), limit=4)))
    assert [reason_of(error.status) for error in reply.items[0].row_errors] == ["NOT_FINITE"] * 2
    assert reply.items[1].value.data == values_of(send(stepped, request(sample_item(count=2))))[0]


def test_a_failing_step_leaves_co_batched_items_unharmed(stepped: Worker) -> None:
    mate = sample_item(count=2)
    reply = send(stepped, call(mate, sample_item(RAISES_LATE), limit=4))
    assert [reply.items[0].carry.next_step, reply.items[1].status.code] == [4, code_pb2.INTERNAL]
    assert values_of(send(stepped, request(resumed(mate, reply.items[0])))) == values_of(send(stepped, request(mate)))


@pytest.mark.parametrize("limit", [0, 5], ids=["whole", "cut"])
def test_a_deadline_between_steps_stops_the_draw(stepped: Worker, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    now, taken = [1000.0], []

    def step_and_wait(step: int) -> None:
        taken.append(step)
        now[0] += 1.0

    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr(SteppedToy, "when_stepping", staticmethod(step_and_wait))
    message = call(sample_item(), limit=limit)
    message.deadline_unix_ms = 1_002_500
    assert (codes(send(stepped, message)), taken) == ([code_pb2.DEADLINE_EXCEEDED], [0, 1, 2])
