"""Given rows that a worker refuses, each alone."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from google.rpc import code_pb2
from numpy.typing import NDArray

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.worker.requests import CallCapacity
from handlers.worker.worker import Worker
from tests.handlers.given_toys import CODE, toy_codes
from tests.handlers.toys import (
    codes,
    given_item,
    image_item,
    reason_of,
    request,
    sample_item,
    send,
    toy_images,
)

ENCODE, DECODE = model_pb2.OPERATION_ENCODE, model_pb2.OPERATION_DECODE
SCORE, TRANSLATE = model_pb2.OPERATION_SCORE, model_pb2.OPERATION_TRANSLATE

Arrays = NDArray[np.float32] | NDArray[np.uint8]


def _spoil(item: worker_pb2.WorkerItem, change: Callable[[worker_pb2.WorkerItem], object]) -> worker_pb2.WorkerItem:
    change(item)
    return item


_NAN = np.full((1, 4, 4, 1), np.nan, "<f4")
_MASK = np.ones((1, 4, 4, 1), "<f4")


@pytest.mark.parametrize(
    ("item", "reason", "message"),
    [
        pytest.param(
            sample_item(), "KIND_WRONG", "ENCODE takes rows with addresses; set item.given", id="range-to-encode"
        ),
        pytest.param(image_item(toy_images(1)), "KIND_WRONG", "set item.given", id="tensor-to-encode"),
        pytest.param(
            given_item(np.zeros((2, 4, 4, 3), "u1"), labels=(0,)), "SHAPE_WRONG",
            r"given.values.dims are \[2, 4, 4, 3\]; this model reads \(2, 4, 4, 1\), or \(1, 4, 4, 1\) for all",
            id="three-channels",
        ),
        pytest.param(
            given_item(toy_images(2), labels=(0,), count=3), "SHAPE_WRONG", r"\(3, 4, 4, 1\)", id="too-few-rows"
        ),
        pytest.param(given_item(np.zeros((0, 4, 4, 1), "u1"), labels=(0,), count=1), "SHAPE_WRONG", "", id="no-rows"),
        pytest.param(given_item(toy_images(1), labels=(0,), count=0), "COUNT_WRONG", "request 1 or more", id="count-0"),
        pytest.param(
            given_item(toy_images(1), 2**64 - 1, (0,), count=2), "INDEX_WRONG", "start earlier", id="beyond-the-indices"
        ),
        pytest.param(
            given_item(toy_images(1), labels=(0,), count=65_537), "ITEM_TOO_LARGE", "split it", id="too-many"
        ),
        pytest.param(given_item(_NAN, labels=(0,)), "VALUES_NOT_FINITE", "send finite floats", id="nan"),
        pytest.param(
            given_item(_MASK * np.float32(1.01), labels=(0,)), "VALUES_OUT_OF_RANGE",
            r"a value is outside \[0, 1\], the model's value range", id="beyond-the-range",
        ),
        pytest.param(given_item(_MASK * np.float32(np.inf), labels=(0,)), "VALUES_NOT_FINITE", "", id="infinite"),
        pytest.param(
            given_item(toy_images(1)), "LABELS_WRONG", "0 labels for 1 rows; send one for all", id="no-label"
        ),
        pytest.param(given_item(toy_images(3), labels=(0, 1)), "LABELS_WRONG", "2 labels for 3 rows", id="two-labels"),
        pytest.param(
            given_item(toy_images(1), labels=(3,)), "LABEL_UNKNOWN", "labels are 0 to 2", id="label-beyond-the-classes"
        ),
        pytest.param(
            _spoil(given_item(toy_images(1), labels=(0,)), lambda item: item.given.addresses.labels.append(0)),
            "LABELS_WRONG", "leave addresses.labels empty", id="labels-twice",
        ),
        pytest.param(
            _spoil(given_item(toy_images(1), labels=(0,)), lambda item: item.given.values.ClearField("dtype")),
            "DTYPE_WRONG", "set UINT8 or FLOAT32", id="no-dtype",
        ),
        pytest.param(
            _spoil(given_item(toy_images(1), labels=(0,)), lambda item: item.given.values.ClearField("data")),
            "DATA_WRONG", "has 0 bytes, its dims and dtype mean 16", id="no-data",
        ),
        pytest.param(
            _spoil(given_item(toy_images(1), labels=(0,)), lambda item: setattr(item, "dtype", 1)),
            "DTYPE_WRONG", "ENCODE gives FLOAT32 only; leave dtype unset", id="uint8-latents",
        ),
        pytest.param(
            given_item(toy_images(1), labels=(0,), mask=_MASK), "MASK_NOT_TAKEN", "leave given.mask unset", id="mask"
        ),
        pytest.param(
            _spoil(given_item(toy_images(1), labels=(0,)), lambda item: setattr(item.carry, "next_step", 1)),
            "CARRY_NOT_TAKEN", "leave carry unset", id="carry",
        ),
    ],
)  # fmt: skip
def test_bad_pictures_to_encode_are_refused_alone(
    autoencoder: Worker, item: worker_pb2.WorkerItem, reason: str, message: str
) -> None:
    good = given_item(toy_images(2), labels=(1,))
    reply = send(autoencoder, request(good, item, good, operation=ENCODE))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason
    assert re.search(message, reply.items[1].status.message)
    assert reply.items[0].value == reply.items[2].value


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        pytest.param(given_item(np.zeros((1, CODE + 1), "<f4"), labels=(0,)), "SHAPE_WRONG", id="longer-latent"),
        pytest.param(given_item(toy_images(1), labels=(0,)), "SHAPE_WRONG", id="pictures"),
        pytest.param(given_item(np.zeros((1, CODE), "u1"), labels=(0,)), "DTYPE_WRONG", id="uint8"),
        pytest.param(given_item(np.full((1, CODE), np.nan, "<f4"), labels=(0,)), "VALUES_NOT_FINITE", id="nan"),
        pytest.param(given_item(toy_codes(1)), "LABELS_WRONG", id="no-label"),
        pytest.param(
            _spoil(given_item(toy_codes(1), labels=(0,)), lambda item: setattr(item, "dtype", 9)),
            "DTYPE_WRONG", id="unknown-dtype",
        ),
    ],
)  # fmt: skip
def test_bad_latents_to_decode_are_refused_alone(autoencoder: Worker, item: worker_pb2.WorkerItem, reason: str) -> None:
    good = given_item(toy_codes(2), labels=(1,))
    reply = send(autoencoder, request(good, item, good, operation=DECODE))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason


def test_latents_of_any_size_are_decoded(autoencoder: Worker) -> None:
    item = given_item(np.full((1, CODE), 1e30, "<f4"), labels=(0,))
    assert codes(send(autoencoder, request(item, operation=DECODE))) == [0]


@pytest.mark.parametrize(
    ("labels", "reason"), [((0, 1), "LABELS_WRONG"), ((3,), "LABEL_UNKNOWN")], ids=["two-of-three", "unknown"]
)
def test_bad_labels_to_score_are_refused_alone(autoencoder: Worker, labels: tuple[int, ...], reason: str) -> None:
    good = given_item(toy_images(1), labels=(1,))
    reply = send(autoencoder, request(good, given_item(toy_images(3), labels=labels), good, operation=SCORE))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason


@pytest.mark.parametrize("first", [(), (1,)], ids=["without-first", "with-first"])
def test_scores_with_and_without_labels_do_not_share_a_call(autoencoder: Worker, first: tuple[int, ...]) -> None:
    items = [given_item(toy_images(2), labels=labels) for labels in (first, first, (1,) if not first else ())]
    reply = send(autoencoder, request(*items, operation=SCORE))
    assert codes(reply) == [0, 0, code_pb2.INVALID_ARGUMENT]
    assert reason_of(reply.items[2].status) == "LABELS_NOT_SHARED"


def test_a_refused_item_takes_no_capacity_and_decides_no_labels(
    autoencoder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.worker.worker.CallCapacity", lambda: CallCapacity(rows=2))
    bad = [given_item(_NAN), given_item(toy_images(3)), given_item(np.repeat(_NAN, 2, axis=0), labels=(0,))]
    reply = send(autoencoder, request(*bad, given_item(toy_images(2), labels=(0,)), operation=SCORE))
    assert codes(reply) == [3, code_pb2.RESOURCE_EXHAUSTED, 3, 0]


def test_a_label_for_an_unconditional_model_is_refused(points: Worker) -> None:
    for operation in (ENCODE, DECODE, SCORE):
        reply = send(points, request(given_item(np.zeros((1, 2), "<f4"), labels=(0,)), operation=operation))
        assert reason_of(reply.items[0].status) == "LABEL_NOT_TAKEN"


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        pytest.param(np.ones((1, 4, 4, 1), "u1"), "DTYPE_WRONG", id="uint8"),
        pytest.param(np.full((1, 4, 4, 1), 0.5, "<f4"), "MASK_WRONG", id="half"),
        pytest.param(np.full((1, 4, 4, 1), np.nan, "<f4"), "MASK_WRONG", id="nan"),
        pytest.param(np.ones((1, 4, 4), "<f4"), "SHAPE_WRONG", id="without-channels"),
        pytest.param(np.ones((3, 4, 4, 1), "<f4"), "SHAPE_WRONG", id="three-for-two"),
    ],
)
def test_a_bad_mask_is_refused_alone(painter: Worker, mask: Arrays, reason: str) -> None:
    good = given_item(toy_images(2), mask=_MASK)
    bad = given_item(toy_images(2), mask=mask)
    reply = send(painter, request(good, bad, good))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reason_of(reply.items[1].status) == reason


def test_rows_with_and_without_masks_do_not_share_a_call(painter: Worker) -> None:
    items = [given_item(toy_images(2), mask=_MASK), given_item(toy_images(2))]
    reply = send(painter, request(*items))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT]
    assert reason_of(reply.items[1].status) == "MASKS_NOT_SHARED"


def test_a_model_that_samples_freely_refuses_given_values(autoencoder: Worker) -> None:
    reply = send(autoencoder, request(sample_item(), given_item(toy_images(1), labels=(0,)), sample_item()))
    assert codes(reply) == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert reply.items[1].status.message == "this model samples without given values; set item.range"


def test_a_translation_takes_no_mask(painter: Worker) -> None:
    reply = send(painter, request(given_item(toy_images(2), mask=_MASK), operation=TRANSLATE))
    assert reason_of(reply.items[0].status) == "MASK_NOT_TAKEN"
