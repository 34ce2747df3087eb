"""Samples as an array with labels and addresses, which views that could contradict them lose."""

import pickle

import numpy as np
import pytest

from fount import Samples
from fount.client.catalog import model_info
from fount.errors import InvalidRequest, SampleFailed
from fount.evaluation.types import evaluation_info
from fount.sampling.types import Chunk, ModelId, Provenance, RowError, SampleCollector, SampleShape
from fount.v1 import evaluation_pb2, model_pb2

PROVENANCE = Provenance(model=ModelId(name="digits", version="1.0", digest="sha256:a"), seed=5, numerics="cpu")
SHAPE = SampleShape(dims=(1, 2, 1), dtype="uint8", value_range=(0.0, 255.0), encoding="uint8")


def piece(start, values, labels=None, errors=()):
    samples = np.array(values, np.uint8).reshape(-1, 1, 2, 1)
    labels = None if labels is None else np.array(labels)
    return Chunk(
        provenance=PROVENANCE, shape_of_one=SHAPE, start_index=start, count=len(samples), samples=samples,
        labels=labels, errors=tuple(errors),
    )  # fmt: skip


@pytest.fixture
def samples():
    collector = SampleCollector(3)
    collector.add(piece(10, [0, 1, 2, 3], [7, 8]))
    collector.add(piece(12, [4, 5], [9]))
    return collector.finish()


@pytest.fixture
def texts():
    collector = SampleCollector(3)
    shape = SampleShape(dims=(-1,), dtype="uint8", value_range=(0.0, 255.0), encoding="uint8")
    for start, values in ((10, ("a", "")), (12, ("bc",))):
        collector.add(
            Chunk(
                provenance=PROVENANCE, shape_of_one=shape, start_index=start, count=len(values), samples=None,
                texts=values, labels=np.zeros(len(values), np.int64),
            )
        )  # fmt: skip
    return collector.finish()


def test_it_has_texts(texts):
    assert texts.texts == ("a", "", "bc")
    assert (texts.shape, texts[2], texts.indices.tolist()) == ((3,), "bc", [10, 11, 12])
    assert pickle.loads(pickle.dumps(texts[1:])).texts == ("", "bc")


def test_samples_that_are_no_texts_have_none(samples):
    assert samples.texts == ()


def test_it_is_an_array(samples):
    assert isinstance(samples, np.ndarray)
    assert (samples.shape, samples.dtype, len(samples)) == ((3, 1, 2, 1), np.uint8, 3)
    assert np.asarray(samples).ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_it_has_provenance(samples):
    assert (samples.seed, samples.numerics, str(samples.model)) == (5, "cpu", "digits:1.0@sha256:a")
    assert (samples.labels.tolist(), samples.indices.tolist(), samples.start_index) == ([7, 8, 9], [10, 11, 12], 10)


def test_it_can_be_written_to(samples):
    samples[0] = 9
    assert samples[0].ravel().tolist() == [9, 9]


@pytest.mark.parametrize(
    ("key", "labels", "indices"),
    [
        (slice(1, None), [8, 9], [11, 12]),
        (slice(None, None, -1), [9, 8, 7], [12, 11, 10]),
        ([2, 0], [9, 7], [12, 10]),
        (np.array([True, False, True]), [7, 9], [10, 12]),
    ],
    ids=["slice", "backwards", "list", "mask"],
)
def test_it_keeps_labels_and_indices_of_selected_rows(samples, key, labels, indices):
    selected = samples[key]
    assert (selected.labels.tolist(), selected.indices.tolist(), selected.seed) == (labels, indices, 5)


@pytest.mark.parametrize("key", [0, (slice(None), 0), np.zeros((3, 1, 2, 1), bool), None], ids=str)
def test_it_returns_a_plain_array_for_other_selections(samples, key):
    assert type(samples[key]) is np.ndarray


def test_it_returns_a_number_for_one_element(samples):
    assert samples[1, 0, 1, 0] == 3


def test_it_loses_labels_in_another_order(samples):
    assert samples.reshape(-1).labels is None
    assert np.roll(samples, 1, axis=0).labels is None


def test_it_returns_plain_arrays_from_arithmetic(samples):
    assert type(samples / 255) is np.ndarray
    assert samples.mean() == 2.5


def test_it_keeps_labels_in_a_copy(samples):
    copied = samples.copy()
    copied.labels[0] = 0
    assert (samples.labels[0], copied.indices.tolist()) == (7, [10, 11, 12])


def test_it_survives_pickling(samples):
    again = pickle.loads(pickle.dumps(samples))
    assert isinstance(again, Samples)
    assert (again.tolist(), again.labels.tolist(), again.seed) == (samples.tolist(), [7, 8, 9], 5)


def test_it_has_no_labels_without_classes():
    collector = SampleCollector(1)
    collector.add(piece(0, [1, 2]))
    assert collector.finish().labels is None


def test_it_names_failed_samples():
    collector = SampleCollector(2)
    collector.add(piece(0, [0, 0, 1, 1], errors=[RowError(index=0, code="INTERNAL", message="not finite")]))
    with pytest.raises(SampleFailed, match="sample 0: INTERNAL: not finite") as failed:
        collector.finish()
    assert failed.value.indices == [0]


def test_it_counts_many_failed_samples():
    assert str(SampleFailed([(i, "bad") for i in range(12)])).endswith("and 2 more")


def test_it_converts_a_chunk_to_an_array():
    got = piece(4, [0, 1, 2, 3])
    assert (np.asarray(got).shape, len(got), got.indices.tolist()) == ((2, 1, 2, 1), 2, [4, 5])


def test_it_refuses_more_samples_than_fit_in_memory():
    with pytest.raises(InvalidRequest, match="do not fit in memory; use stream"):
        SampleCollector(2**63).add(piece(0, [0, 1]))


def test_ranges_that_a_server_leaves_out_are_still_pairs():
    model = model_info(model_pb2.Model(parameters=[{"name": "steps"}], quality=[{"metric": "fid"}]))
    info = evaluation_info(evaluation_pb2.Evaluation(metrics=[{"name": "fid", "null": {"mean": 1.0}}]))
    assert (model.parameters[0].range, model.quality[0].interval) == ((0.0, 0.0), (0.0, 0.0))
    assert (info.metrics[0].null.range, info.metrics[0].interval) == ((0.0, 0.0), None)
