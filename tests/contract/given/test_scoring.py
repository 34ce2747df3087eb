"""ScoringService: scores and class probabilities of rows, in closed form by the in-memory models."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from fount.v1 import model_pb2, sampling_pb2
from service.domain import Operation
from tests.contract.gateways import Running, fields, serving, serving_slowly
from tests.contract.given.streams import answer, pixels, pool_of_models, ref, refused, requests, results, rows


def scores(images: np.ndarray, labels=0) -> np.ndarray:
    """What the in-memory model returns: column minus the sum of the row, plus 100 times the label."""
    flat = images.reshape(len(images), -1) / np.float32(255)
    return np.arange(2) - flat.sum(axis=1, keepdims=True) + 100 * np.reshape(labels, (-1, 1))


async def test_it_scores_rows_in_the_columns_of_the_card(running: Running) -> None:
    images = pixels(5)
    header, _, found = await answer(running, "Score", {}, rows(images))
    assert np.allclose(found, scores(images), atol=1e-5)
    assert [column.name for column in header.columns] == ["a", "b"]
    assert header.columns[0].kind == model_pb2.ScoreColumn.KIND_EXACT
    assert list(header.stream.sample_spec.dims) == [2]


async def test_labels_condition_the_score(running: Running) -> None:
    images, config = pixels(3), {"model": ref("classes")}
    assert np.allclose(await results(running, "Score", config, rows(images)), scores(images), atol=1e-5)
    found = await results(running, "Score", config, rows(images, labels=[0, 1, 2]))
    assert np.allclose(found, scores(images, [0, 1, 2]), atol=1e-5)
    one = config | {"label": sampling_pb2.LabelRef(name="one")}
    assert np.allclose(await results(running, "Score", one, rows(images)), scores(images, 1), atol=1e-5)


async def test_rows_with_and_without_labels_share_no_call(running: Running) -> None:
    running.pool.faults.delay_s = 0.05  # so that the messages after the first wait together
    images, config = pixels(2), {"model": ref("classes")}
    messages = [rows(images), rows(images, labels=[1, 1])] * 4
    found = await results(running, "Score", config, *messages)
    assert np.allclose(found, np.concatenate([scores(images), scores(images, 1)] * 4), atol=1e-5)
    calls = [[item.labels is None for item in call.items] for call in running.pool.calls]
    assert max(map(len, calls)) > 1
    assert all(len(set(call)) == 1 for call in calls)


async def test_it_classifies(running: Running) -> None:
    images = np.zeros((2, 2, 3, 1), np.uint8)
    images[1, 0, 0, 0] = 2
    header, _, found = await answer(running, "Classify", {"model": ref("classes")}, rows(images))
    assert found.argmax(axis=1).tolist() == [0, 2]
    assert [label.name for label in header.labels] == ["zero", "one", "two"]


async def test_another_prior_reweights_by_bayes(running: Running) -> None:
    images = np.zeros((1, 2, 3, 1), np.uint8)  # p(y|x) = 0.9, 0.05, 0.05 under equal priors
    components = [
        sampling_pb2.MixtureComponent(label=sampling_pb2.LabelRef(id=0), weight=1),
        sampling_pb2.MixtureComponent(label=sampling_pb2.LabelRef(id=1), weight=3),
    ]
    config = {"model": ref("classes"), "prior": sampling_pb2.Mixture(components=components)}
    found = await results(running, "Classify", config, rows(images))
    assert np.allclose(found, [[0.9 / 1.05, 0.15 / 1.05, 0]], atol=1e-6)


async def test_a_failed_row_fails_alone(running: Running) -> None:
    running.pool.faults.bad_indices = frozenset({1})
    _, (chunk,), found = await answer(running, "Score", {}, rows(pixels(3)))
    assert [each.index for each in chunk.errors] == [1]
    assert found[1].tolist() == [0, 0]


async def test_costly_scores_are_cut_into_short_calls_and_leave_the_cost_of_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A score takes 100 steps' time, of which the gateway knows the model's 20."""
    monkeypatch.setattr("service.workers.memory._steps_taken", lambda call, model: 100)
    monkeypatch.setattr("service.latent.stream._BATCH_S", 0.2)
    images = pixels(30)
    async with serving_slowly(pool_of_models(), bulk_batch_ms=200) as running:
        _, chunks, found = await answer(running, "Score", {"model": ref("steps")}, rows(images))
        counts = [sum(item.count for item in call.items) for call in running.pool.calls]
        (backlog,) = running.gateway.scheduler._backlogs.values()
        assert backlog.costs(Operation.SAMPLE).per_unit_s == pytest.approx(0.001)
        assert backlog.costs(Operation.SCORE).per_unit_s > 0.002
    assert np.allclose(found, scores(images), atol=1e-5)
    assert max(counts) <= 10  # in 200 ms, of 20 steps each
    assert counts[-1] < counts[0]
    assert not any(call.step_limit for call in running.pool.calls)
    assert len(chunks) >= 3


async def test_scores_share_calls_that_take_long_however_few_they_are() -> None:
    pool = pool_of_models()
    pool.batch_seconds = {1: 0.01, 64: 0.0163}  # of a step; of the 20 steps of a score at least 0.2 s
    pool.faults.delay_s = 0.3
    images = pixels(60)
    async with serving(pool, bulk_batch_ms=200) as running:
        found = await results(running, "Score", {"model": ref("steps")}, *(rows(images[k::3]) for k in range(3)))
    assert np.allclose(found, scores(np.concatenate([images[k::3] for k in range(3)])), atol=1e-5)
    assert len(pool.calls) <= 6


async def test_steps_make_a_score_cost_more_and_are_no_limit(running: Running) -> None:
    images, config = pixels(4), {"model": ref("steps"), "parameters": sampling_pb2.Parameters(steps=1000)}
    assert np.allclose(await results(running, "Score", config, rows(images)), scores(images), atol=1e-5)
    assert not any(call.step_limit for call in running.pool.calls)
    assert all(call.cost_s >= 1000 * 1e-5 for call in running.pool.calls)


async def test_parameters_by_which_a_score_would_outlast_a_worker_call_are_refused() -> None:
    async with serving_slowly(pool_of_models(), worker_timeout_s=0.5) as running:
        config = {"model": ref("steps"), "parameters": sampling_pb2.Parameters(steps=1000)}  # of a millisecond
        error = await refused(running, "Score", *requests("Score", config, rows(pixels(1))))
        assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, ["config.parameters"])
        assert "about 1 s, and may take 0.5 s; lower steps" in str(error)
        assert not running.pool.calls
        assert len(await results(running, "Score", config | {"parameters": None}, rows(pixels(1)))) == 1
