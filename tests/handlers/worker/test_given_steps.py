"""Draws that are given their beginning: they are preempted like any other, and what is given stays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fount.worker.v1 import worker_pb2
from handlers.execution.pixels import uint8_to_floats
from handlers.worker.worker import Worker
from tests.handlers.many_step_toys import LEVELS, RowToy, write_row_folder
from tests.handlers.stepping_toys import call, draw_preempted, values_of
from tests.handlers.toys import (
    SIDE,
    codes,
    given_item,
    load,
    reason_of,
    sample_item,
    send,
    toy_images,
    with_seconds,
)

LABELS = (0, 1, 2, 1, 0)
COUNT = len(LABELS)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return load(write_row_folder(tmp_path_factory.mktemp("rows"), RowToy(3)), RowToy)


def mask(rows: int) -> NDArray[np.float32]:
    """A mask of the first rows of pixels."""
    values = np.zeros((COUNT, SIDE, SIDE, 1), np.float32)
    values[:, :rows] = 1
    return values


def given(rows: int, images: NDArray[np.uint8]) -> worker_pb2.WorkerItem:
    values = uint8_to_floats(images, (0.0, 1.0))
    return given_item(values, start=70, labels=LABELS, seed=9, mask=mask(rows))


PLAIN = sample_item(9, 70, COUNT, labels=LABELS)


def resumable(item: worker_pb2.WorkerItem) -> worker_pb2.WorkerItem:
    """The same addresses as a range, which a preempted draw resumes with."""
    return worker_pb2.WorkerItem(range=worker_pb2.Range(seed=9, start_index=70, count=COUNT, labels=LABELS))


def pictures(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f4").reshape(COUNT, SIDE, SIDE, 1)


def draw_cut(worker: Worker, item: worker_pb2.WorkerItem, limit: int) -> bytes:
    outcome = send(worker, call(item, limit=limit)).items[0]
    rest = resumable(item)
    rest.carry.CopyFrom(outcome.carry)
    return values_of(send(worker, call(rest)))[0]


def test_given_rows_stay_and_the_others_are_drawn(worker: Worker) -> None:
    images = toy_images(COUNT)
    (data,) = values_of(send(worker, call(given(2, images))))
    levels = np.rint(images[:, :2] / 255 * (LEVELS - 1)) / (LEVELS - 1)
    np.testing.assert_allclose(pictures(data)[:, :2], levels, atol=1e-6)
    (free,) = values_of(send(worker, call(PLAIN)))
    assert not np.array_equal(pictures(data)[:, 2:], pictures(free)[:, 2:])


def test_its_own_beginning_gives_the_same_picture(worker: Worker) -> None:
    (free,) = values_of(send(worker, call(PLAIN)))
    own = given_item(pictures(free), start=70, labels=LABELS, seed=9, mask=mask(2))
    assert values_of(send(worker, call(own))) == [free]


@pytest.mark.parametrize("limit", range(1, SIDE))
def test_a_cut_draw_equals_an_uncut_one(worker: Worker, limit: int) -> None:
    item = given(2, toy_images(COUNT))
    assert draw_cut(worker, item, limit) == values_of(send(worker, call(item)))[0]


def test_draws_with_and_without_given_values_resume_together(worker: Worker) -> None:
    item = given(1, toy_images(COUNT))
    outcome = send(worker, call(item, limit=1)).items[0]
    rest = resumable(item)
    rest.carry.CopyFrom(outcome.carry)
    plain = sample_item(3, 0, 2, labels=(1,))
    plain.carry.CopyFrom(send(worker, call(plain, limit=1)).items[0].carry)
    together = values_of(send(worker, call(rest, plain)))
    assert together[0] == values_of(send(worker, call(item)))[0]
    assert together[1] == draw_preempted(worker, [sample_item(3, 0, 2, labels=(1,))], [1], steps=None)[0]


def test_given_values_with_a_state_are_refused(worker: Worker) -> None:
    item = given(2, toy_images(COUNT))
    item.carry.CopyFrom(send(worker, call(item, limit=1)).items[0].carry)
    reply = send(worker, call(item))
    assert reason_of(reply.items[0].status) == "CARRY_NOT_TAKEN"


def test_a_draw_that_starts_is_refused_among_those_that_resume(worker: Worker) -> None:
    going = sample_item(3, 0, 2, labels=(1,))
    going.carry.CopyFrom(send(worker, call(going, limit=1)).items[0].carry)
    reply = send(worker, call(going, given(2, toy_images(COUNT))))
    assert codes(reply)[0] == 0
    assert reason_of(reply.items[1].status) == "STEP_NOT_SHARED"


def test_batches_with_given_values_teach_no_times(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    timed = with_seconds(worker, {8: 6.0})
    assert timed.model.engine is not None
    times = timed.model.engine.times["SAMPLE"]
    send(timed, call(given(SIDE, toy_images(COUNT))))
    send(timed, call(PLAIN, given(SIDE, toy_images(COUNT))))
    assert times.seconds == {8: 6.0}
    send(timed, call(PLAIN))
    assert times.seconds == {8: 3.0}
