"""Noise has its documented distributions, by tests of scipy at fixed seeds.

The seeds are fixed, so tests are deterministic; a correct generator exceeds the bounds for less than one seed in a
thousand.
"""

import numpy as np
import pytest
from scipy import stats

from fount.address import Addresses, Stream

DRAWS = 10**6
RAREST_P_VALUE = 1e-3


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    """(1000, 1000) normals: a thousand addresses, a thousand components."""
    return Addresses.of_range(20240229, 0, 1000).normals(Stream.LATENT, DRAWS // 1000).astype(np.float64)


def test_normals_pass_kolmogorov_and_smirnov(z: np.ndarray) -> None:
    assert stats.kstest(z.ravel(), "norm").pvalue > RAREST_P_VALUE


@pytest.mark.parametrize(
    ("power", "moment", "variance"),
    [
        pytest.param(1, 0, 1, id="mean"),
        pytest.param(2, 1, 2, id="variance"),
        pytest.param(3, 0, 15, id="skewness"),
        pytest.param(4, 3, 96, id="kurtosis"),
    ],
)
def test_normals_have_the_moments_of_a_normal(z: np.ndarray, power: int, moment: int, variance: int) -> None:
    error = (z**power).mean() - moment
    assert abs(error) < 3.3 * np.sqrt(variance / DRAWS)


def test_normals_reach_the_tails_as_often_as_they_should(z: np.ndarray) -> None:
    beyond = int((np.abs(z) > 4).sum())
    expected = DRAWS * 2 * stats.norm.sf(4)  # 63
    assert abs(beyond - expected) < 3.3 * np.sqrt(expected)


def test_each_bit_of_a_word_is_set_half_the_time() -> None:
    words = Addresses.of_range(1, 0, 1000).words(Stream.LATENT, DRAWS // 1000).ravel()
    ones = np.array([int(((words >> np.uint32(bit)) & np.uint32(1)).sum()) for bit in range(32)])
    chi_square = ((ones - DRAWS / 2) ** 2 / (DRAWS / 4)).sum()
    assert stats.chi2.sf(chi_square, df=32) > RAREST_P_VALUE


def test_bytes_of_words_are_uniform() -> None:
    words = Addresses.of_range(2, 0, 1000).words(Stream.LATENT, DRAWS // 1000)
    counts = np.bincount(words.view(np.uint8).ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > RAREST_P_VALUE


def test_labels_are_uniform() -> None:
    uniforms = Addresses.of_range(3, 0, DRAWS).uniforms(Stream.LABEL, 1).ravel()
    assert stats.kstest(uniforms, "uniform").pvalue > RAREST_P_VALUE


@pytest.mark.parametrize(
    ("seed", "index", "stream"),
    [
        pytest.param(5, 1000, Stream.LATENT, id="next indices"),
        pytest.param(6, 0, Stream.LATENT, id="next seed"),
        pytest.param(5, 0, Stream.STEP, id="other stream"),
        pytest.param(5 + 2**32, 0, Stream.LATENT, id="seed that differs above 32 bits"),
        pytest.param(5, 2**32, Stream.LATENT, id="index that differs above 32 bits"),
    ],
)
def test_neighbours_are_uncorrelated(seed: int, index: int, stream: Stream) -> None:
    one = Addresses.of_range(5, 0, 1000).normals(Stream.LATENT, 1000).ravel()
    other = Addresses.of_range(seed, index, 1000).normals(stream, 1000).ravel()
    assert stats.pearsonr(one, other).pvalue > RAREST_P_VALUE


def test_one_index_is_uncorrelated_with_the_next(z: np.ndarray) -> None:
    assert stats.pearsonr(z[:-1].ravel(), z[1:].ravel()).pvalue > RAREST_P_VALUE


def test_one_component_is_uncorrelated_with_the_next(z: np.ndarray) -> None:
    assert stats.pearsonr(z[:, :-1].ravel(), z[:, 1:].ravel()).pvalue > RAREST_P_VALUE


def test_the_sizes_of_a_pair_are_uncorrelated(z: np.ndarray) -> None:
    assert stats.pearsonr(z[:, 0::2].ravel() ** 2, z[:, 1::2].ravel() ** 2).pvalue > RAREST_P_VALUE


@pytest.mark.parametrize("bound", [0.5, 1.0, 2.5])
def test_truncated_normals_pass_kolmogorov_and_smirnov(bound: float) -> None:
    z = Addresses.of_range(4, 0, 1000).normals(Stream.LATENT, 100, truncation=bound).ravel()
    assert stats.kstest(z, stats.truncnorm(-bound, bound).cdf).pvalue > RAREST_P_VALUE
