"""Translations in many steps, of pictures of another shape: preempted and resumed as samples are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.worker.worker import Worker
from tests.handlers.given_toys import ToyPainter, painter_card, serve
from tests.handlers.toys import SIDE, codes, given_item, load, reason_of, request, send, toy_images
from tests.handlers.translating_toys import (
    ENLARGER_STEPS,
    EnlargerToy,
    small_images,
    write_enlarger_folder,
)

TRANSLATE = model_pb2.OPERATION_TRANSLATE
COUNT, LABELS = 3, (0, 1, 1)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return load(write_enlarger_folder(tmp_path_factory.mktemp("enlarger")), EnlargerToy)


def call(*items: worker_pb2.WorkerItem, limit: int = 0, steps: int | None = None) -> worker_pb2.WorkerRequest:
    message = request(*items, operation=TRANSLATE)
    message.step_limit = limit
    if steps is not None:
        message.parameters.steps = steps
    return message


def given(start: int = 70, labels: tuple[int, ...] = LABELS) -> worker_pb2.WorkerItem:
    return given_item(small_images(COUNT), start=start, labels=labels, seed=9)


def resumed(item: worker_pb2.WorkerItem, outcome: worker_pb2.WorkerOutcome) -> worker_pb2.WorkerItem:
    addresses = worker_pb2.Range()
    addresses.CopyFrom(item.given.addresses if item.HasField("given") else item.range)
    if item.HasField("given"):
        addresses.labels.extend(item.given.labels)
    return worker_pb2.WorkerItem(range=addresses, carry=outcome.carry)


def pictures(reply: worker_pb2.WorkerReply, item: int = 0) -> NDArray[np.float32]:
    assert reply.items[item].WhichOneof("outcome") == "value", reply
    value = reply.items[item].value
    return np.frombuffer(value.data, "<f4").reshape(tuple(value.dims))


def test_a_small_picture_becomes_a_large_one(worker: Worker) -> None:
    assert pictures(send(worker, call(given()))).shape == (COUNT, SIDE, SIDE, 1)


@pytest.mark.parametrize("limit", range(1, ENLARGER_STEPS))
def test_a_cut_translation_equals_an_uncut_one(worker: Worker, limit: int) -> None:
    item, rest = given(), given()
    whole = pictures(send(worker, call(item)))
    while (reply := send(worker, call(rest, limit=limit))).items[0].WhichOneof("outcome") == "carry":
        rest = resumed(rest, reply.items[0])
    assert pictures(reply).tobytes() == whole.tobytes()


def test_the_steps_of_a_call_are_those_requested(worker: Worker) -> None:
    reply = send(worker, call(given(), limit=2, steps=9))
    assert reply.items[0].carry.next_step == 2
    assert reply.items[0].carry.state.dims[:] == [COUNT, 2, SIDE, SIDE]


def test_translations_that_resume_share_a_call(worker: Worker) -> None:
    items = [given(), given(start=5, labels=(1,))]
    whole = send(worker, call(*items))
    cut = send(worker, call(*items, limit=3))
    reply = send(worker, call(*(resumed(*pair) for pair in zip(items, cut.items, strict=True))))
    assert [pictures(reply, k).tobytes() for k in (0, 1)] == [pictures(whole, k).tobytes() for k in (0, 1)]


def test_an_answer_depends_on_address_label_and_picture(worker: Worker) -> None:
    own = pictures(send(worker, call(given())))
    assert not np.array_equal(own, pictures(send(worker, call(given(start=71)))))
    others = pictures(send(worker, call(given(labels=(1, 1, 0)))))
    assert [np.array_equal(own[row], others[row]) for row in range(COUNT)] == [False, True, False]


def test_one_picture_has_many_answers(worker: Worker) -> None:
    item = given_item(small_images(1), start=70, labels=(0,), seed=9, count=COUNT)
    answers = pictures(send(worker, call(item)))
    assert len({answer.tobytes() for answer in answers}) == COUNT


def test_a_picture_of_the_samples_shape_is_refused(worker: Worker) -> None:
    reply = send(worker, call(given(), given_item(toy_images(1), labels=(0,))))
    assert codes(reply) == [0, 3]
    assert reason_of(reply.items[1].status) == "SHAPE_WRONG"
    assert "this model reads (1, 2, 2, 1)" in reply.items[1].status.message


def test_a_given_picture_with_a_state_is_refused(worker: Worker) -> None:
    item = given()
    item.carry.CopyFrom(send(worker, call(item, limit=1)).items[0].carry)
    assert reason_of(send(worker, call(item)).items[0].status) == "CARRY_NOT_TAKEN"


def test_a_translation_that_starts_is_refused_among_those_that_resume(worker: Worker) -> None:
    going = resumed(given(), send(worker, call(given(), limit=1)).items[0])
    reply = send(worker, call(going, given()))
    assert codes(reply)[0] == 0
    assert reason_of(reply.items[1].status) == "STEP_NOT_SHARED"


def test_addresses_without_a_picture_are_refused(worker: Worker) -> None:
    item = worker_pb2.WorkerItem(range=worker_pb2.Range(seed=9, count=1, labels=(0,)))
    reply = send(worker, call(item))
    assert reason_of(reply.items[0].status) == "KIND_WRONG"
    assert "set item.given" in reply.items[0].status.message


def test_a_translation_in_one_step_is_not_preempted(tmp_path_factory: pytest.TempPathFactory) -> None:
    painter = serve(tmp_path_factory.mktemp("painter"), painter_card(), ToyPainter)
    images = np.full((2, SIDE, SIDE, 1), 0.25, np.float32)
    reply = send(painter, call(given_item(images), limit=1))
    np.testing.assert_allclose(pictures(reply), 0.75)
