"""FID, KID, inception score and Vendi score: closed forms, merging in any split, and invalid input."""

from __future__ import annotations

import threading
import time
from functools import reduce

import numpy as np
import pytest

from service.evaluation.statistics.fid import Moments, estimate_fid, frechet_distance
from service.evaluation.statistics.inception_score import ProbabilitySums, estimate_inception_score, inception_score
from service.evaluation.statistics.kid import KernelSums, estimate_kid, kid
from service.evaluation.statistics.vendi_score import SecondMoments, estimate_vendi, vendi_score

# --- Other threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(lambda rows: vendi_score(SecondMoments.of(rows)), id="Vendi"),
        pytest.param(lambda rows: frechet_distance(Moments.of(rows), Moments.of(rows[::-1] + 1)), id="FID"),
    ],
)
def test_other_threads_run_while_it_is_computed(measure) -> None:
    """A runner's heartbeat is one of them."""
    rows, pauses_s, done = features(1, 1000, 900), [0.0], threading.Event()

    def measure_pauses() -> None:
        last_s = time.monotonic()
        while not done.wait(0.001):
            last_s, before_s = time.monotonic(), last_s
            pauses_s.append(last_s - before_s)

    watching = threading.Thread(target=measure_pauses)
    watching.start()
    start_s = time.monotonic()
    measure(rows)
    elapsed_s = time.monotonic() - start_s
    done.set()
    watching.join()
    assert max(pauses_s) < elapsed_s / 4


# --- Merging ----------------------------------------------------------------------------------------------------------


def features(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + 0.3 * seed


REFERENCE = features(2, 80, 6)
PROBABILITIES = np.random.default_rng(5).dirichlet(np.ones(6), 150)
MANY_FEATURES = 130  # more than KID's tensors take
STATES = {
    "FID": (Moments, lambda state: frechet_distance(state, Moments.of(REFERENCE))),
    "KID of tensors": (KernelSums, lambda state: kid(state, KernelSums.of(REFERENCE))),
    "KID of rows": (KernelSums, lambda state: kid(state, KernelSums.of(features(2, 80, MANY_FEATURES)))),
    "inception score": (ProbabilitySums, inception_score),
    "Vendi": (SecondMoments, vendi_score),
    "Vendi of order 2": (SecondMoments, lambda state: vendi_score(state, 2)),
}
states = pytest.mark.parametrize("name", STATES)


def rows_of(name: str) -> np.ndarray:
    if name == "inception score":
        return PROBABILITIES
    return features(1, 150, MANY_FEATURES if name == "KID of rows" else 6)


@states
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_same_for_any_split_in_any_order(name, seed):
    kind, statistic = STATES[name]
    rows, rng = rows_of(name), np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(rows) + 1, 6))
    parts = [kind.of(part) for part in np.split(rng.permutation(rows), [0, *cuts, len(rows)])]  # empty ones among them
    merged = reduce(kind.merge, [parts[i] for i in rng.permutation(len(parts))])
    assert merged.count == len(rows)
    assert statistic(merged) == pytest.approx(statistic(kind.of(rows)), rel=1e-9)


@states
def test_merging_is_associative(name):
    kind, statistic = STATES[name]
    a, b, c = (kind.of(part) for part in np.split(rows_of(name), [30, 31]))
    assert statistic(a.merge(b).merge(c)) == pytest.approx(statistic(a.merge(b.merge(c))), rel=1e-9)


@states
def test_states_of_different_widths_do_not_merge(name):
    kind = STATES[name][0]
    rows = rows_of(name)
    wider = np.hstack([rows, np.zeros((len(rows), 1))])
    with pytest.raises(ValueError, match=f"{rows.shape[1]} and of {wider.shape[1]}"):
        kind.of(rows).merge(kind.of(wider))


def test_moments_far_from_zero_keep_their_digits():
    rows = features(0, 5000, 3)
    far = reduce(Moments.merge, [Moments.of(part + 1e6) for part in np.split(rows, 10)])
    np.testing.assert_allclose(far.covariance, np.cov(rows.T), rtol=1e-8, atol=1e-9)


def test_long_sets_are_processed_in_chunks():
    rows = features(0, 20_000, 2).astype(np.float32)
    np.testing.assert_allclose(Moments.of(rows).covariance, np.cov(rows.astype(np.float64).T), rtol=1e-12)
    assert SecondMoments.of(rows).count == KernelSums.of(rows).count == 20_000


# --- Fréchet distance -------------------------------------------------------------------------------------------------


def moments(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return Moments(1001, mean, covariance * 1000)


def test_fid_between_gaussians_is_closed_form():
    d, shift, scale = 5, np.array([1.0, 0, 2, 0, -1]), 0.7
    a, b = moments(np.zeros(d), np.eye(d)), moments(shift, scale**2 * np.eye(d))
    assert frechet_distance(a, b) == pytest.approx(6 + d * (1 - scale) ** 2)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))


def test_fid_of_one_set_with_itself_is_zero():
    own = Moments.of(features(1, 50, 4))
    assert frechet_distance(own, own) == pytest.approx(0, abs=1e-12)


def test_fid_does_not_change_under_rotation():
    rotation = np.linalg.qr(features(3, 4, 4))[0]
    a, b = features(1, 50, 4), features(2, 60, 4)
    rotated = frechet_distance(Moments.of(a @ rotation), Moments.of(b @ rotation))
    assert rotated == pytest.approx(frechet_distance(Moments.of(a), Moments.of(b)))


def test_fid_of_constant_rows_is_the_other_sides_variance():
    constant, spread = moments(np.zeros(3), np.zeros((3, 3))), moments(np.zeros(3), np.diag([1.0, 2.0, 3.0]))
    assert frechet_distance(constant, spread) == pytest.approx(6)
    assert frechet_distance(spread, constant) == pytest.approx(6)
    assert frechet_distance(constant, constant) == 0


@pytest.mark.parametrize("flat", [(0, 1), (2, 3)], ids=["the same directions", "other directions"])
def test_fid_of_singular_covariances_is_closed_form(flat):
    a, b = np.ones(4), np.full(4, 4.0)
    a[[0, 1]], b[list(flat)] = 0, 0
    distance = frechet_distance(moments(np.zeros(4), np.diag(a)), moments(np.zeros(4), np.diag(b)))
    assert distance == pytest.approx(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2))


def test_fid_of_fewer_rows_than_features_is_finite():
    few = features(1, 5, 40)
    assert frechet_distance(Moments.of(few), Moments.of(few)) == pytest.approx(0, abs=1e-6)
    estimate = estimate_fid(few, Moments.of(features(2, 100, 40)))
    assert estimate.interval[0] < estimate.value < estimate.interval[1]


def test_fid_of_sets_of_one_distribution_is_its_known_bias():
    rng, d, n = np.random.default_rng(1), 16, 1000
    values = [frechet_distance(*(Moments.of(rng.normal(size=(n, d))) for _ in range(2))) for _ in range(10)]
    assert np.mean(values) == pytest.approx((d * d / 4 + d) * 2 / n, rel=0.1)


def test_fid_interval_contains_the_value_of_all_rows():
    a, b = features(1, 300, 4), Moments.of(features(2, 200, 4))
    estimate = estimate_fid(a, b)
    assert estimate.value == pytest.approx(frechet_distance(Moments.of(a), b))
    assert estimate.interval[0] < estimate.value < estimate.interval[1]
    assert estimate_fid(a, b) == estimate


# --- KID --------------------------------------------------------------------------------------------------------------


def by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """Compute means over pairs from the definition of the kernel."""
    n, m, d = len(a), len(b), a.shape[1]
    xx, yy, xy = ((x @ y.T / d + 1) ** 3 for x, y in [(a, a), (b, b), (a, b)])
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within - 2 * xy.mean()


def kid_of(a: np.ndarray, b: np.ndarray) -> float:
    return kid(KernelSums.of(a), KernelSums.of(b))


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("most_features", [128, 0], ids=["tensors", "rows"])
def test_kid_matches_the_definition(d, most_features, monkeypatch):
    monkeypatch.setattr("service.evaluation.statistics.kid.CUBIC_FEATURES", most_features)
    a, b = features(1, 40, d), features(2, 25, d)
    assert kid_of(a, b) == pytest.approx(by_definition(a, b), rel=1e-12)


def test_kid_tensor_has_one_number_for_each_triple():
    assert KernelSums.of(features(1, 3, 10)).summary.shape == (286,)


def test_kid_keeps_rows_where_there_are_many_features():
    a, b = features(1, 1030, 129), features(2, 30, 129)  # more than one tile
    assert KernelSums.of(a).summary.shape == a.shape
    assert kid_of(a, b) == pytest.approx(by_definition(a, b), rel=1e-10)


def test_kid_of_sets_of_one_distribution_is_zero_on_average_and_may_be_negative():
    rng = np.random.default_rng(1)
    values = np.array([kid_of(rng.normal(size=(50, 3)), rng.normal(size=(60, 3))) for _ in range(200)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(200)
    assert values.min() < 0


@pytest.mark.parametrize("d", [3, 130], ids=["tensors", "rows"])
def test_kid_interval_is_the_jackknifes(d):
    a, b = features(1, 4, d), features(2, 9, d)
    estimate = estimate_kid(a, KernelSums.of(b))
    left_out = np.array([by_definition(np.delete(a, row, 0), b) for row in range(4)])
    half = 3.182446 * np.sqrt(3 / 4 * np.sum((left_out - left_out.mean()) ** 2))  # t, 3 degrees of freedom
    assert estimate.value == pytest.approx(by_definition(a, b))
    assert np.array(estimate.interval) - estimate.value == pytest.approx((-half, half), rel=1e-6)
    assert estimate_kid(a, KernelSums.of(b[:3]).merge(KernelSums.of(b[3:]))).value == pytest.approx(estimate.value)


# --- Inception score --------------------------------------------------------------------------------------------------


def test_inception_score_of_no_information_is_one():
    assert estimate_inception_score(np.full((50, 7), 1 / 7)).value == pytest.approx(1)
    assert estimate_inception_score(np.tile(np.eye(7)[2], (50, 1))).interval == pytest.approx((1, 1))


def test_inception_score_of_every_class_once_is_their_number():
    assert inception_score(ProbabilitySums.of(np.eye(10, dtype=np.float32))) == pytest.approx(10)


@pytest.mark.parametrize(("classes", "n"), [(10, 100), (10, 1000), (1000, 5000)])
def test_inception_score_of_a_perfect_generator_is_biased_as_known(classes, n):
    rng = np.random.default_rng(1)
    values = [inception_score(ProbabilitySums(n, rng.multinomial(n, np.full(classes, 1 / classes)).astype(float), 0.0))
              for _ in range(200)]  # fmt: skip
    assert np.mean(values) == pytest.approx(classes * np.exp(-(classes - 1) / (2 * n)), rel=5e-3)


@pytest.mark.parametrize("wrong", [[-0.1, 1.1], [0.5, 0.4]], ids=["negative", "not 1 in all"])
def test_inception_score_refuses_rows_that_are_not_probabilities(wrong):
    with pytest.raises(ValueError, match="1 of 2 rows are not probabilities"):
        estimate_inception_score(np.array([[0.5, 0.5], wrong]))


# --- Vendi score ------------------------------------------------------------------------------------------------------

orders = pytest.mark.parametrize("order", [0.5, 1, 2, np.inf])


@orders
def test_vendi_of_one_direction_is_one(order):
    rows = np.outer(np.arange(1, 31), [1.0, 2.0, -1.0])
    assert vendi_score(SecondMoments.of(rows), order) == pytest.approx(1, abs=1e-6)


@orders
def test_vendi_of_orthogonal_rows_is_their_number(order):
    assert vendi_score(SecondMoments.of(np.eye(12)), order) == pytest.approx(12)
    assert vendi_score(SecondMoments.of(5 * np.eye(12, 30)), order) == pytest.approx(12)


def test_vendi_of_order_two_is_the_mean_squared_similarity():
    rows = features(1, 40, 5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert vendi_score(SecondMoments.of(rows), 2) == pytest.approx(40**2 / np.sum((unit @ unit.T) ** 2))


def test_vendi_decreases_with_its_order():
    values = [vendi_score(SecondMoments.of(features(1, 40, 5)), order) for order in (0.5, 1, 1.001, 2, 50, np.inf)]
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(values[2], rel=1e-3)


def test_vendi_counts_rows_of_zeros_as_one_direction_of_their_own():
    assert vendi_score(SecondMoments.of(np.zeros((9, 4)))) == pytest.approx(1)
    assert vendi_score(SecondMoments.of(np.vstack([np.eye(4), np.zeros((1, 4))]))) == pytest.approx(5)


def test_vendi_does_not_underflow_on_tiny_rows():
    assert vendi_score(SecondMoments.of(np.eye(3) * 1e-300)) == pytest.approx(3)


@pytest.mark.parametrize("order", [0.0, -1.0, np.nan])
def test_vendi_refuses_orders_not_above_0(order):
    with pytest.raises(ValueError, match="order above 0"):
        estimate_vendi(np.eye(3), order)


# --- Bad input --------------------------------------------------------------------------------------------------------

ESTIMATES = {
    "FID": lambda rows: estimate_fid(rows, Moments.of(np.eye(4))),
    "KID": lambda rows: estimate_kid(rows, KernelSums.of(np.eye(4))),
    "inception score": estimate_inception_score,
    "Vendi": estimate_vendi,
}
estimates = pytest.mark.parametrize("name", ESTIMATES)


@estimates
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_it_reports_how_many_rows_are_not_finite(name, bad):
    rows = np.full((30, 4), 0.25, dtype=np.float32)
    rows[[3, 9], [0, 2]] = bad
    with pytest.raises(ValueError, match="2 of 30 rows are not finite"):
        ESTIMATES[name](rows)


@estimates
@pytest.mark.parametrize(
    "rows", [np.zeros((0, 4)), np.zeros(4), np.zeros((3, 0))], ids=["none", "one axis", "no width"]
)
def test_it_refuses_arrays_that_are_not_rows(name, rows):
    with pytest.raises(ValueError, match="rows"):
        ESTIMATES[name](rows)


@pytest.mark.parametrize("name", ["FID", "KID"])
def test_fid_and_kid_refuse_a_single_row(name):
    with pytest.raises(ValueError, match="at least 2 rows are needed, there are 1"):
        ESTIMATES[name](np.full((1, 4), 0.25))


@pytest.mark.parametrize("name", ["inception score", "Vendi"])
def test_a_single_row_scores_1_without_an_interval(name):
    estimate = ESTIMATES[name](np.full((1, 4), 0.25))
    assert estimate.value == pytest.approx(1)
    assert estimate.interval is None


@estimates
def test_two_rows_have_a_value(name):
    estimate = ESTIMATES[name](np.full((2, 4), 0.25))
    assert np.isfinite(estimate.value)
    assert (estimate.interval is None) == (name in ("FID", "KID"))


@estimates
def test_constant_rows_have_an_interval_of_width_0(name):
    estimate = ESTIMATES[name](np.full((60, 4), 0.25))
    assert estimate.interval == pytest.approx((estimate.value, estimate.value), abs=1e-9)


def test_sets_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="4 and of 3 features"):
        estimate_fid(np.ones((5, 4)), Moments.of(np.eye(3)))
    with pytest.raises(ValueError, match="4 and of 3 features"):
        estimate_kid(np.ones((5, 4)), KernelSums.of(np.eye(3)))
    with pytest.raises(ValueError, match="2 rows"):
        kid_of(np.ones((5, 3)), np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least 2 rows"):
        frechet_distance(Moments.of(np.eye(3)), Moments.of(np.ones((1, 3))))
