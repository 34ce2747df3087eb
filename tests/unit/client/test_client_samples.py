"""Samples as an array that knows its labels and addresses, and forgets them before they could lie."""

import pickle

import numpy as np
import pytest

from fount import Samples
from fount.errors import InvalidRequest, SampleFailed
from fount.sampling.types import Chunk, ModelId, Provenance, RowError, SampleCollector, SampleShape

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


def test_it_is_an_array(samples):
    assert isinstance(samples, np.ndarray)
    assert (samples.shape, samples.dtype, len(samples)) == ((3, 1, 2, 1), np.uint8, 3)
    assert np.asarray(samples).ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_it_knows_where_it_is_from(samples):
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
def test_rows_picked_keep_their_own_labels_and_indices(samples, key, labels, indices):
    picked = samples[key]
    assert (picked.labels.tolist(), picked.indices.tolist(), picked.seed) == (labels, indices, 5)


@pytest.mark.parametrize("key", [0, (slice(None), 0), np.zeros((3, 1, 2, 1), bool), None], ids=str)
def test_anything_else_picked_is_a_plain_array(samples, key):
    assert type(samples[key]) is np.ndarray


def test_one_number_picked_is_a_number(samples):
    assert samples[1, 0, 1, 0] == 3


def test_another_order_forgets_labels(samples):
    assert samples.reshape(-1).labels is None
    assert np.roll(samples, 1, axis=0).labels is None


def test_arithmetic_gives_plain_arrays(samples):
    assert type(samples / 255) is np.ndarray
    assert samples.mean() == 2.5


def test_a_copy_keeps_labels(samples):
    copied = samples.copy()
    copied.labels[0] = 0
    assert (samples.labels[0], copied.indices.tolist()) == (7, [10, 11, 12])


def test_it_survives_pickling(samples):
    again = pickle.loads(pickle.dumps(samples))
    assert isinstance(again, Samples)
    assert (again.tolist(), again.labels.tolist(), again.seed) == (samples.tolist(), [7, 8, 9], 5)


def test_without_classes_there_are_no_labels():
    collector = SampleCollector(1)
    collector.add(piece(0, [1, 2]))
    assert collector.finish().labels is None


def test_failed_samples_are_named():
    collector = SampleCollector(2)
    collector.add(piece(0, [0, 0, 1, 1], errors=[RowError(index=0, code="INTERNAL", message="not finite")]))
    with pytest.raises(SampleFailed, match="sample 0: INTERNAL: not finite") as failed:
        collector.finish()
    assert failed.value.indices == [0]


def test_many_failed_samples_are_counted():
    assert str(SampleFailed([(i, "bad") for i in range(12)])).endswith("and 2 more")


def test_a_chunk_is_an_array_too():
    got = piece(4, [0, 1, 2, 3])
    assert (np.asarray(got).shape, len(got), got.indices.tolist()) == ((2, 1, 2, 1), 2, [4, 5])


def test_more_samples_than_memory_holds_are_refused_with_advice():
    with pytest.raises(InvalidRequest, match="do not fit in memory; use stream"):
        SampleCollector(2**63).add(piece(0, [0, 1]))
