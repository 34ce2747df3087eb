"""A worker's answers to given rows: latents, decoded pictures, scores, translations, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from google.rpc import code_pb2
from numpy.typing import NDArray

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Parameter
from handlers.execution.pixels import uint8_to_floats
from handlers.family import Deadline
from handlers.worker.worker import Worker
from tests.handlers.given_toys import (
    CODE,
    ToyAutoencoder,
    ToyPoints,
    reader_of_points_card,
    serve,
    toy_codes,
)
from tests.handlers.toys import (
    codes,
    given_item,
    image_item,
    reason_of,
    request,
    sample_item,
    send,
    toy_images,
    with_seconds,
)

SAMPLE, CLASSIFY = model_pb2.OPERATION_SAMPLE, model_pb2.OPERATION_CLASSIFY
ENCODE, DECODE = model_pb2.OPERATION_ENCODE, model_pb2.OPERATION_DECODE
SCORE, TRANSLATE = model_pb2.OPERATION_SCORE, model_pb2.OPERATION_TRANSLATE
SIZES = (1, 7, 8, 9, 33, 40)
"""Rows of requests in one call; together 98, so that batches of 16 and less are run."""

Arrays = NDArray[np.float32] | NDArray[np.uint8]


def _floats(count: int) -> NDArray[np.float32]:
    return uint8_to_floats(toy_images(count), (0.0, 1.0))


def _values(worker: Worker, operation: int, *items: worker_pb2.WorkerItem) -> list[Arrays]:
    reply = send(worker, request(*items, operation=operation))
    assert codes(reply) == [0] * len(items), reply
    tensors = [item.value for item in reply.items]
    kinds = {model_pb2.DTYPE_UINT8: "u1", model_pb2.DTYPE_FLOAT32: "<f4"}
    return [np.frombuffer(tensor.data, kinds[tensor.dtype]).reshape(tuple(tensor.dims)) for tensor in tensors]


# --- What is computed -------------------------------------------------------------------------------------------------


def test_latents_are_the_mean_and_the_standard_deviation(autoencoder: Worker) -> None:
    (found,) = _values(autoencoder, ENCODE, given_item(toy_images(5), labels=(0, 1, 2, 0, 1)))
    images = torch.from_numpy(_floats(5)).permute(0, 3, 1, 2)
    mean, logvar = ToyAutoencoder(3).encode(images, torch.tensor([0, 1, 2, 0, 1]))
    np.testing.assert_allclose(found[:, 0], mean.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], (0.5 * logvar).exp().detach().numpy(), atol=1e-6)
    assert found.shape == (5, 2, CODE)


def test_a_code_that_is_a_point_has_no_spread(points: Worker) -> None:
    (found,) = _values(points, ENCODE, given_item(np.array([[1, 1], [-2, 4]], "<f4")))
    assert found.tolist() == [[[2.0, 0.5], [0.0, 0.0]], [[-4.0, 2.0], [0.0, 0.0]]]


def test_a_picture_as_bytes_and_as_floats_has_the_same_latent(autoencoder: Worker) -> None:
    one, other = (
        _values(autoencoder, ENCODE, given_item(values, labels=(2,)))[0] for values in (toy_images(9), _floats(9))
    )
    assert one.tobytes() == other.tobytes()


def test_a_latent_decodes_to_floats_and_to_their_levels(autoencoder: Worker) -> None:
    z = np.array([[0.25, -1.0, 2.0]], "<f4")
    item = given_item(z, labels=(1,))
    (floats,) = _values(autoencoder, DECODE, item)
    item.dtype = model_pb2.DTYPE_UINT8
    (levels,) = _values(autoencoder, DECODE, item)
    expected = ToyAutoencoder(3).decode(torch.from_numpy(z), torch.tensor([1])).permute(0, 2, 3, 1).detach().numpy()
    np.testing.assert_allclose(floats, expected, atol=1e-6)
    assert levels.tolist() == np.rint(255 * expected).astype(int).tolist()


def test_scores_with_a_label_average_to_the_score_without(autoencoder: Worker) -> None:
    images = toy_images(6)
    given = [_values(autoencoder, SCORE, given_item(images, labels=(label,)))[0][:, 0] for label in range(3)]
    (without,) = _values(autoencoder, SCORE, given_item(images))
    np.testing.assert_allclose(without[:, 0], np.logaddexp.reduce(given, axis=0) - np.log(3), rtol=1e-5)
    assert without.shape == (6, 2)


def test_scores_use_the_parameters_of_the_call(autoencoder: Worker) -> None:
    message = request(given_item(toy_images(4)), operation=SCORE)
    one = send(autoencoder, message).items[0].value.data
    message.parameters.importance_samples = 2
    assert send(autoencoder, message).items[0].value.data != one
    message.parameters.importance_samples = 65
    assert codes(send(autoencoder, message)) == [code_pb2.INVALID_ARGUMENT]


def test_a_batch_of_scores_is_timed_as_one_of_the_usual_steps_and_samples(
    autoencoder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def score_slowly(images: torch.Tensor, *_: object) -> torch.Tensor:
        now[0] += 100.0
        return torch.zeros(len(images), 2)

    timed = _with_steps(with_seconds(autoencoder, {8: 5.0}), usual=5.0)
    _break(timed, monkeypatch, "score", score_slowly)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    message = request(given_item(toy_images(4)), operation=SCORE)
    message.parameters.steps, message.parameters.importance_samples = 50, 2
    assert send(timed, message).timings.compute_s == 100.0
    assert timed.model.engine is not None
    assert timed.model.engine.times["SCORE"].seconds == {8: 5.0}


def _with_steps(worker: Worker, usual: float) -> Worker:
    """The same worker, whose scores take the parameter `steps`."""
    engine = worker.model.engine
    assert engine is not None
    steps = Parameter(min=1.0, max=50.0, default=usual, description="Steps of a score.")
    card = replace(engine.network.card, parameters={**engine.network.card.parameters, "steps": steps})
    engine = replace(engine, network=replace(engine.network, card=card))
    return Worker(model=replace(worker.model, engine=engine))


def test_the_density_of_points_is_that_of_the_normal(points: Worker) -> None:
    (found,) = _values(points, SCORE, given_item(np.array([[0, 0], [0.5, 4.0]], "<f4")))
    np.testing.assert_allclose(found, [[-1.8378771], [-1.8378771 - 0.5 - 2.0]], rtol=1e-6)  # log(1 / 2 pi) at 0


def test_samples_of_points_are_floats_of_their_length(points: Worker) -> None:
    (found,) = _values(points, SAMPLE, sample_item(count=5, labels=()))
    assert (found.shape, found.dtype) == ((5, 2), np.float32)
    assert len(np.unique(found)) == 10


@pytest.mark.parametrize("operation", [SAMPLE, DECODE], ids=["sample", "decode"])
def test_points_are_never_bytes(points: Worker, operation: int) -> None:
    item = given_item(toy_codes(1)[:, :2].copy()) if operation == DECODE else sample_item(labels=())
    item.dtype = model_pb2.DTYPE_UINT8
    status = send(points, request(item, operation=operation)).items[0].status
    assert (reason_of(status), status.message) == ("DTYPE_WRONG", "vectors are FLOAT32 only; leave dtype unset")


def test_points_to_read_are_floats(points: Worker) -> None:
    for operation in (ENCODE, SCORE):
        reply = send(points, request(given_item(np.zeros((1, 2), "u1")), operation=operation))
        assert reason_of(reply.items[0].status) == "DTYPE_WRONG"


def test_points_are_classified(tmp_path_factory: pytest.TempPathFactory) -> None:
    worker = serve(tmp_path_factory.mktemp("reader"), reader_of_points_card(), ToyPoints)
    (found,) = _values(worker, CLASSIFY, image_item(np.array([[0.0, 0.0], [0.0, np.log(3)]], "<f4")))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)
    reply = send(worker, request(image_item(np.zeros((1, 2), "u1")), operation=CLASSIFY))
    assert reason_of(reply.items[0].status) == "DTYPE_WRONG"


# --- The address promise ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [ENCODE, DECODE, SCORE], ids=["encode", "decode", "score"])
def test_rows_are_the_same_bytes_in_requests_of_any_size_and_company(autoencoder: Worker, operation: int) -> None:
    rows = toy_codes(98) if operation == DECODE else toy_images(98)
    (together,) = _values(autoencoder, operation, given_item(rows, labels=(1,)))
    at = np.cumsum([0, *SIZES])
    items = [given_item(rows[at[i] : at[i + 1]], int(at[i]), (1,)) for i in range(len(SIZES))]
    assert np.concatenate(_values(autoencoder, operation, *items)).tobytes() == together.tobytes()
    assert np.concatenate(_values(autoencoder, operation, *items[::-1])[::-1]).tobytes() == together.tobytes()
    alone = [_values(autoencoder, operation, given_item(rows[i : i + 1], i, (1,)))[0] for i in range(12)]
    assert np.concatenate(alone).tobytes() == together[:12].tobytes()


def test_a_score_depends_on_its_address(autoencoder: Worker) -> None:
    image = toy_images(1)
    base = _values(autoencoder, SCORE, given_item(image))[0]
    moved = _values(autoencoder, SCORE, given_item(image, 1), given_item(image, seed=2))
    assert [each[0, 0] for each in moved] == [base[0, 0]] * 2
    assert len({base[0, 1], *(each[0, 1] for each in moved)}) == 3


@pytest.mark.parametrize("operation", [ENCODE, DECODE, SCORE], ids=["encode", "decode", "score"])
def test_one_row_for_all_addresses_is_that_row_at_each(autoencoder: Worker, operation: int) -> None:
    row = toy_codes(1) if operation == DECODE else toy_images(1)
    one = _values(autoencoder, operation, given_item(row, 5, (0, 1, 2), count=3))[0]
    each = _values(autoencoder, operation, given_item(np.repeat(row, 3, axis=0), 5, (0, 1, 2)))[0]
    assert one.tobytes() == each.tobytes()
    assert len(np.unique(one, axis=0)) == 3


# --- Given values of samples and translations -------------------------------------------------------------------------


def test_a_masked_sample_keeps_what_is_given(painter: Worker) -> None:
    mask = np.zeros((2, 4, 4, 1), "<f4")
    mask[:, :2] = 1
    (found,) = _values(painter, SAMPLE, given_item(_floats(2), mask=mask))
    (free,) = _values(painter, SAMPLE, sample_item(count=2, labels=()))
    assert found[:, :2].tobytes() == _floats(2)[:, :2].tobytes()
    assert found[:, 2:].tobytes() == free[:, 2:].tobytes()


def test_a_sample_of_given_values_without_a_mask_is_given_all(painter: Worker) -> None:
    item = given_item(toy_images(3))
    item.dtype = model_pb2.DTYPE_UINT8
    assert _values(painter, SAMPLE, item)[0].tobytes() == toy_images(3).tobytes()


def test_given_and_free_samples_may_share_a_call(painter: Worker) -> None:
    items = [sample_item(count=3, labels=()), given_item(_floats(3)), sample_item(seed=2, labels=())]
    alone = [_values(painter, SAMPLE, item)[0].tobytes() for item in items]
    assert [values.tobytes() for values in _values(painter, SAMPLE, *items)] == alone


def test_one_mask_and_picture_serve_all_addresses(painter: Worker) -> None:
    hidden = np.zeros((1, 4, 4, 1), "<f4")
    (found,) = _values(painter, SAMPLE, given_item(_floats(1), mask=hidden, count=40))
    (free,) = _values(painter, SAMPLE, sample_item(count=40, labels=()))
    assert found.tobytes() == free.tobytes()


def test_a_translation_maps_each_picture(painter: Worker) -> None:
    item = given_item(toy_images(3))
    item.dtype = model_pb2.DTYPE_UINT8
    assert _values(painter, TRANSLATE, item)[0].tolist() == (255 - toy_images(3).astype(int)).tolist()


# --- Models at fault --------------------------------------------------------------------------------------------------


def _break(worker: Worker, monkeypatch: pytest.MonkeyPatch, method: str, replacement: Callable[..., object]) -> None:
    assert worker.model.engine is not None
    monkeypatch.setattr(worker.model.engine.network.module, method, replacement)


@pytest.mark.parametrize(
    ("operation", "method", "result"),
    [
        pytest.param(SCORE, "score", lambda n: torch.zeros(n, 3), id="three-scores-for-two-columns"),
        pytest.param(SCORE, "score", lambda n: torch.zeros(n), id="scores-without-columns"),
        pytest.param(SCORE, "score", lambda n: torch.zeros(n, 2, dtype=torch.int64), id="whole-scores"),
        pytest.param(ENCODE, "encode", lambda n: (torch.zeros(n, 4), None), id="longer-latents"),
        pytest.param(ENCODE, "encode", lambda n: (torch.zeros(n, 3), torch.zeros(n, 1)), id="one-spread-for-all"),
        pytest.param(DECODE, "decode", lambda n: torch.zeros(n, 16), id="flat-pictures"),
    ],
)
def test_a_result_of_the_wrong_shape_fails_the_call(
    autoencoder: Worker, monkeypatch: pytest.MonkeyPatch, operation: int, method: str, result: Callable[[int], object]
) -> None:
    _break(autoencoder, monkeypatch, method, lambda values, *_: result(len(values)))
    rows = toy_codes(2) if operation == DECODE else toy_images(2)
    reply = send(autoencoder, request(given_item(rows, labels=(0,)), operation=operation))
    assert codes(reply) == [code_pb2.INTERNAL]
    assert reason_of(reply.items[0].status) == "MODEL_FAILED"


def test_a_score_that_is_not_finite_fails_its_row_alone(autoencoder: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.tensor([[-1.0, -1.0], [-torch.inf, -1.0], [-1e30, -2.0], [0.0, torch.nan]])
    _break(autoencoder, monkeypatch, "score", lambda images, *_: scores[(255 * images[:, 0, 0, 0]).round().long()])
    images = np.zeros((4, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = range(4)
    reply = send(autoencoder, request(given_item(images), operation=SCORE))
    assert [(row.row, reason_of(row.status)) for row in reply.items[0].row_errors] == [
        (1, "NOT_FINITE"), (3, "NOT_FINITE"),
    ]  # fmt: skip
    values = np.frombuffer(reply.items[0].value.data, "<f4").reshape(4, 2)
    np.testing.assert_allclose(values, [[-1, -1], [0, 0], [-1e30, -2], [0, 0]], rtol=1e-6)


def test_a_decoded_picture_beyond_the_range_fails_its_row_alone(
    autoencoder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(autoencoder, monkeypatch, "decode", lambda z, *_: z[:, :1].expand(-1, 16).reshape(-1, 1, 4, 4))
    z = np.array([[1.0, 0, 0], [1.5, 0, 0]], "<f4")
    reply = send(autoencoder, request(given_item(z, labels=(0,)), operation=DECODE))
    assert [(row.row, reason_of(row.status)) for row in reply.items[0].row_errors] == [(1, "OUT_OF_RANGE")]


def test_a_score_ends_at_the_deadline_that_it_checks(autoencoder: Worker, monkeypatch: pytest.MonkeyPatch) -> None:

    def score_slowly(*arguments: object) -> None:
        deadline = arguments[-1]
        assert isinstance(deadline, Deadline)
        for _ in range(1000):
            time.sleep(0.001)
            deadline.check()

    _break(autoencoder, monkeypatch, "score", score_slowly)
    message = request(given_item(toy_images(1)), operation=SCORE)
    message.deadline_unix_ms = int(1000 * time.time()) + 50
    reply = send(autoencoder, message)
    assert codes(reply) == [code_pb2.DEADLINE_EXCEEDED]
