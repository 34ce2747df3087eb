"""Nearest rows, manifolds, the birthday test, copies and hashes: closed forms, merging and invalid input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.evaluation.statistics.birthday import (
    Collisions,
    calibrate,
    closest_pairs,
    count_collisions,
    effective_size,
)
from service.evaluation.statistics.copies import copy_ratios, copy_threshold, estimate_copy_rate, nearest_auc
from service.evaluation.statistics.distances import nearest, prepare
from service.evaluation.statistics.hashes import difference_hashes, near_matches
from service.evaluation.statistics.precision_recall import Manifold, compare, expected_coverage
from service.pixel_products import exact_keys


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def images(n: int, shape=(8, 8, 1), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


# --- Distances --------------------------------------------------------------------------------------------------------


def test_distances_of_images_are_exact() -> None:
    black, white = np.zeros((1, 40, 40, 1), np.uint8), np.full((1, 40, 40, 1), 255, np.uint8)
    distances, rows = nearest(black, np.concatenate([white, black]), 2)
    assert distances.tolist() == [[0.0, 255.0 * 40]]
    assert rows.tolist() == [[1, 0]]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_duplicate_has_distance_exactly_0(offset: float) -> None:
    rows = (normal(3000, 16) + offset).astype(np.float32)
    distances, found = nearest(rows[::7], rows, 2)
    assert (distances[:, 0] == 0).all()
    assert (found[:, 0] == np.arange(0, 3000, 7)).all()
    assert (distances[:, 1] > 0).all()


def test_a_row_is_not_its_own_neighbour_when_excluded() -> None:
    rows = normal(2600, 3)
    distances, found = nearest(rows, rows, 1, exclude_self=True)
    assert (distances > 0).all()
    assert not (found[:, 0] == np.arange(2600)).any()


def test_missing_neighbours_are_infinitely_far() -> None:
    distances, rows = nearest(np.zeros((1, 2)), np.ones((1, 2)), 3)
    assert distances.tolist() == [[math.sqrt(2), math.inf, math.inf]]
    assert rows.tolist() == [[0, -1, -1]]


def test_ties_go_to_the_first_rows() -> None:
    _, rows = nearest(np.zeros((2, 3)), np.ones((5000, 3)), 3)
    assert rows.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("kind", ["images", "features"])
def test_splitting_queries_changes_no_bit(kind: str) -> None:
    rows = images(2500) if kind == "images" else normal(2500, 16)
    queries, ready = rows[1000:1700], prepare(rows)
    whole = nearest(queries, rows, 5)
    parts = [nearest(queries[at : at + 47], ready, 5) for at in range(0, 700, 47)]
    for column in (0, 1):
        assert np.array_equal(np.concatenate([part[column] for part in parts]), whole[column])


def test_rows_sorted_by_falling_distance_are_found() -> None:
    rows = np.arange(6000, 0, -1.0)[:, None]  # every row is nearer to 0 than those before it
    assert nearest(np.zeros((600, 1)), rows, 3)[0][599].tolist() == [1.0, 2.0, 3.0]


def test_rows_that_are_not_finite_are_counted() -> None:
    rows = normal(10, 2)
    rows[3:5] = np.nan
    with pytest.raises(ValueError, match="2 of 10 rows are not finite"):
        nearest(rows, normal(10, 2), 1)


@pytest.mark.parametrize("rows", [normal(4, 3), images(4, (2,))], ids=["width", "kind"])
def test_queries_of_another_kind_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="queries of 2 float64 are not of one kind with rows of"):
        nearest(normal(4, 2), rows, 1)


# --- Manifolds --------------------------------------------------------------------------------------------------------


def test_identical_sets_have_precision_recall_and_coverage_1() -> None:
    same = Manifold.of(normal(400, 8))
    comparison = compare(same, same)
    assert [each.value for each in (comparison.precision, comparison.recall, comparison.coverage)] == [1.0, 1.0, 1.0]
    assert np.isinf(comparison.realism).mean() >= 0.5  # those equal to a row of the smaller half


def test_density_of_samples_of_one_distribution_is_1() -> None:
    density = compare(Manifold.of(normal(1500, 2, 1)), Manifold.of(normal(1500, 2, 2))).density
    assert density.value == pytest.approx(1, abs=0.09)
    assert density.interval[0] < 1.0 < density.interval[1]


@pytest.mark.parametrize(("real", "samples"), [(300, 300), (300, 150)])
def test_mean_coverage_matches_its_closed_form(real: int, samples: int) -> None:
    drawn = [
        compare(Manifold.of(normal(samples, 4, seed)), Manifold.of(normal(real, 4, 100 + seed))).coverage.value
        for seed in range(8)
    ]
    assert np.mean(drawn) == pytest.approx(expected_coverage(real, samples), abs=0.025)


@pytest.mark.parametrize(("real", "samples", "k"), [(1000, 1000, 5), (1000, 500, 5), (40, 70, 3)])
def test_expected_coverage_equals_the_hypergeometric_form(real: int, samples: int, k: int) -> None:
    without = math.comb(real - 1, k) / math.comb(real - 1 + samples, k)
    assert expected_coverage(real, samples, k) == pytest.approx(1 - without, rel=1e-12)


def test_distant_samples_score_0() -> None:
    comparison = compare(Manifold.of(normal(50, 4) + 100), Manifold.of(normal(60, 4, 1)))
    assert [comparison.precision.value, comparison.density.value, comparison.coverage.value] == [0, 0, 0]
    assert comparison.recall.value == 0
    assert (comparison.realism < 0.1).all()


@pytest.mark.parametrize("split", [1, 250, 511, 899])
def test_comparisons_of_parts_of_the_samples_merge_into_the_whole(split: int) -> None:
    samples, real = Manifold.of(normal(900, 6)), Manifold.of(normal(700, 6, 1))
    whole = compare(samples, real)
    merged = compare(samples.part(0, split), real).merge(compare(samples.part(split, 900), real))
    assert np.array_equal(whole.balls, merged.balls)
    assert np.array_equal(whole.realism, merged.realism)
    assert np.array_equal(whole.recall_reach.counts, merged.recall_reach.counts)
    assert (whole.precision, whole.density) == (merged.precision, merged.density)
    assert (whole.recall, whole.coverage) == (merged.recall, merged.coverage)


def test_a_constant_generator_has_recall_0() -> None:
    constant = Manifold.of(np.zeros((50, 4)))
    assert compare(constant, Manifold.of(normal(60, 4))).recall.value == 0


def test_identical_real_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="each of 60 real rows equals 5 others"):
        compare(Manifold.of(normal(50, 4)), Manifold.of(np.ones((60, 4))))


def test_too_few_rows_for_balls_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 rows, there are 5"):
        Manifold.of(normal(5, 2))


# --- Birthdays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [50, 400, 10_000])
def test_the_number_of_prototypes_is_recovered(kinds: int) -> None:
    rng = np.random.default_rng(7)
    prototypes = rng.normal(size=(kinds, 16))
    samples = prototypes[rng.integers(0, kinds, 3000)] + 1e-4 * rng.normal(size=(3000, 16))
    size = effective_size(count_collisions(samples, 0.01, enough=40))
    assert size.interval[0] < kinds < size.interval[1]


def test_counting_stops_at_the_row_that_brings_enough() -> None:
    samples = np.tile(np.arange(10.0), 500)[:, None]
    counted = count_collisions(samples, 0.0, enough=3)
    assert (counted.count, counted.rows, counted.pairs_compared) == (3, 13, 78)
    assert counted.dispersion == 1  # no two of the pairs share a row


@pytest.mark.parametrize("block", [1, 64, 4096])
def test_the_block_size_does_not_change_the_count(block: int) -> None:
    samples = normal(900, 2)
    assert count_collisions(samples, 0.05, enough=30, block=block) == count_collisions(samples, 0.05, enough=30)


def test_without_a_collision_the_size_has_a_lower_bound() -> None:
    size = effective_size(Collisions(count=0, rows=100, pairs_compared=4950))
    assert size.value == math.inf
    assert size.interval == (pytest.approx(4950 / 3.6889, rel=1e-4), math.inf)


def test_twenty_collisions_bound_the_size_on_both_sides() -> None:
    size = effective_size(Collisions(count=20, rows=201, pairs_compared=20_100))
    assert size.value == 1005
    assert size.interval == pytest.approx((650.7, 1645.3), rel=1e-3)


def test_collisions_that_share_rows_widen_the_interval() -> None:
    counted = count_collisions(np.concatenate([np.zeros(4), np.arange(1.0, 21)])[:, None], 0.1, enough=100)
    assert (counted.count, counted.pairs_compared) == (6, 276)
    if_even = 24 * 23 * 22 / 2 * (6 / 276) ** 2
    assert counted.dispersion == pytest.approx(1 + 2 * (12 - if_even) / 6)
    wide, narrow = effective_size(counted), effective_size(Collisions(count=6, rows=24, pairs_compared=276))
    assert wide.interval[0] < narrow.interval[0] < wide.value == narrow.value < narrow.interval[1] < wide.interval[1]


def test_the_threshold_gives_the_requested_number_of_pairs() -> None:
    rows = normal(700, 4)
    counted = count_collisions(rows, calibrate(rows, 20), enough=10**9)
    assert (counted.count, counted.rows, counted.pairs_compared) == (20, 700, 700 * 699 // 2)


def test_the_closest_pairs_are_found_in_order() -> None:
    rows = np.arange(3000.0)[:, None] ** 1.5
    assert [pair[:2] for pair in closest_pairs(rows, 3)] == [(0, 1), (1, 2), (2, 3)]


def test_duplicates_are_a_pair_at_distance_exactly_0() -> None:
    rows = normal(600, 8).astype(np.float32) + 50
    rows[590] = rows[17]
    assert closest_pairs(rows, 1) == [(17, 590, 0.0)]


def test_a_single_row_is_refused() -> None:
    with pytest.raises(ValueError, match="takes two rows, there are 1"):
        count_collisions(normal(1, 2), 1.0)


# --- Memorisation -----------------------------------------------------------------------------------------------------


def ratios(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return copy_ratios(nearest(queries, rows, 10)[0])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_the_copy_rate_contains_the_planted_share(share: float) -> None:
    train, held_out, samples = (normal(2000, 64, seed) for seed in (1, 2, 3))
    copies = int(share * 2000)
    samples[:copies] = train[:copies] + 0.01 * normal(copies, 64, 4)
    rate = estimate_copy_rate(ratios(samples, train), copy_threshold(ratios(held_out, train)))
    expected = share + 0.01 * (1 - share)  # the threshold lets 1 % of anything through
    assert rate.interval[0] < expected < rate.interval[1]


def test_shrinkage_does_not_raise_the_copy_rate() -> None:
    train, held_out, samples = normal(2000, 64, 1), normal(2000, 64, 2), 0.8 * normal(2000, 64, 3)
    rate = estimate_copy_rate(ratios(samples, train), copy_threshold(ratios(held_out, train)))
    assert rate.value < 0.025


def test_a_ratio_needs_three_distances() -> None:
    far = math.inf
    found = copy_ratios(np.array([[1.0, 2, 4], [1, 2, far], [0, 0, 0], [3, 3, 3]]))
    assert found[[0, 2, 3]].tolist() == [1 / 3, 0, 1]
    assert math.isnan(found[1])


def test_a_threshold_reports_how_many_rows_it_needs() -> None:
    with pytest.raises(ValueError, match="needs 1000 held-out rows, there are 500"):
        copy_threshold(np.linspace(0, 1, 500), share=0.001)


def test_the_auc_counts_ties_as_half() -> None:
    assert nearest_auc(np.array([1.0, 2, 3]), np.array([2.0, 2])).value == 0.5
    assert nearest_auc(np.array([1.0, 2]), np.array([2.0, 3])).value == 0.125


def test_complete_separation_has_an_interval() -> None:
    auc = nearest_auc(np.zeros(100), np.ones(200))
    assert auc.value == 0
    assert auc.interval == (0.0, pytest.approx(1 - 0.025**0.01))


# --- Hashes -----------------------------------------------------------------------------------------------------------


def test_only_equal_images_have_equal_hashes() -> None:
    twice = np.concatenate([images(50), images(50)])
    hashes = exact_keys(twice).view(np.uint8).reshape(len(twice), 16)  # n x 16 bytes -> (n, 16)
    assert hashes.shape == (100, 16)
    assert len(np.unique(hashes, axis=0)) == 50


def test_an_image_that_brightens_to_the_right_sets_every_bit() -> None:
    ramp = np.tile(np.arange(0, 252, 9, dtype=np.uint8), (1, 28, 1))[..., None]
    assert [int(each) for each in difference_hashes(np.concatenate([ramp, ramp[:, :, ::-1]]))] == [2**64 - 1, 0]


def test_the_highest_bit_is_the_upper_left_cell() -> None:
    image = np.full((1, 8, 9), 7, np.uint8)
    image[0, 0, 0] = 0
    assert int(difference_hashes(image)[0]) == 1 << 63


def test_brightening_keeps_the_difference_hash() -> None:
    dark = images(20, (16, 18, 3)) // 2
    assert np.array_equal(difference_hashes(dark), difference_hashes(dark + 100))


def test_an_image_of_one_pixel_has_a_hash_of_0() -> None:
    assert difference_hashes(images(1, (1, 1, 1))).tolist() == [0]


@pytest.mark.parametrize("most_bits", [0, 1, 2, 5])
def test_near_matches_are_those_within_so_many_bits(most_bits: int) -> None:
    rng = np.random.default_rng(most_bits)
    rows = rng.integers(0, 2**64, 300, dtype=np.uint64)
    hashes = rows[rng.integers(0, 300, 800)]
    for _ in range(7):  # 0 to 7 bits are flipped
        chosen = rng.random(800) < 0.5
        hashes[chosen] ^= np.uint64(1) << rng.integers(0, 64, int(chosen.sum()), dtype=np.uint64)
    directly = np.bitwise_count(hashes[:, None] ^ rows[None]).min(axis=1) <= most_bits
    assert np.array_equal(near_matches(hashes, rows, most_bits), directly)


@pytest.mark.parametrize("most_bits", [-1, 64])
def test_a_number_of_bits_that_a_hash_does_not_have_is_refused(most_bits: int) -> None:
    with pytest.raises(ValueError, match="most_bits is 0 to 63"):
        near_matches(np.arange(3, dtype=np.uint64), np.arange(3, dtype=np.uint64), most_bits)


def test_nothing_matches_an_empty_set() -> None:
    assert near_matches(np.arange(3, dtype=np.uint64), np.empty(0, np.uint64)).tolist() == [False] * 3
