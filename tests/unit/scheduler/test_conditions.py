"""Labels that conditions assign to samples by their addresses alone."""

from __future__ import annotations

import numpy as np
import pytest

from service.catalog.conditions import DrawnLabels, GivenLabels, NoLabels, OneLabel


def test_an_unconditional_model_has_no_labels() -> None:
    assert NoLabels().labels(1, 0, 5) is None


def test_one_label_applies_to_every_sample() -> None:
    assert OneLabel(label=3).labels(1, 0, 3).tolist() == [3, 3, 3]


def test_given_labels_belong_to_their_indices() -> None:
    given = GivenLabels(first_index=10, ids=np.array([4, 5, 6, 7], np.uint32))
    assert given.labels(1, 12, 2).tolist() == [6, 7]


def test_drawn_labels_depend_on_the_address_alone() -> None:
    source = DrawnLabels.of_weights((0.2, 0.3, 0.5))
    whole = source.labels(9, 0, 100)
    assert source.labels(9, 40, 20).tolist() == whole[40:60].tolist()
    assert source.labels(8, 0, 100).tolist() != whole.tolist()


def test_few_labels_are_those_of_many() -> None:
    source = DrawnLabels.of_weights((0.2, 0.3, 0.5))
    seed, start = 2**64 - 3, 2**33 + 5
    one_by_one = [int(source.labels(seed, start + k, 1)[0]) for k in range(100)]
    assert one_by_one == source.labels(seed, start, 100).tolist()


def test_drawn_labels_follow_their_weights() -> None:
    counts = np.bincount(DrawnLabels.of_weights((1, 3, 6)).labels(9, 0, 100_000), minlength=3)
    assert counts / 100_000 == pytest.approx([0.1, 0.3, 0.6], abs=0.006)


@pytest.mark.parametrize(
    "weights",
    [(0, 1, 0, 2, 0), (0, 0, 0, 1, 0), (0, 1e-300, 0, 1e300, 0), (0, 1.7e308, 0, 1.7e308, 0)],
    ids=["some", "one", "far-apart", "huge"],
)
def test_a_class_of_weight_zero_is_never_drawn(weights: tuple[float, ...]) -> None:
    drawn = set(DrawnLabels.of_weights(weights).labels(9, 0, 100_000).tolist())
    assert drawn <= {k for k, weight in enumerate(weights) if weight}


def test_rounding_leaves_no_gap_at_the_top() -> None:
    source = DrawnLabels.of_weights((0.1,) * 10)
    assert source.cumulative[-1] == 1.0
    assert np.searchsorted(source.cumulative, 1 - 2**-53, side="right") == 9
