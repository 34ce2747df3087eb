"""Points of a latent space, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from fount.address import Addresses, Stream
from service.latent.points import between, draw_around, draw_posterior, walk

A, B = np.array([[3.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)


def line(first, second, share: float, *, spherical: bool = False) -> list[float]:
    rows = (np.array([each], np.float32) for each in (first, second))
    return between(*rows, np.array([share]), spherical=spherical)[0].tolist()


def test_a_straight_line_mixes_its_ends() -> None:
    assert line((0, 8), (4, 0), 0.25) == [1, 6]


@pytest.mark.parametrize("spherical", [False, True])
def test_a_line_begins_and_ends_at_its_ends(spherical: bool) -> None:
    assert line((3, 4), (-5, 12), 0.0, spherical=spherical) == pytest.approx([3, 4], rel=1e-6)
    assert line((3, 4), (-5, 12), 1.0, spherical=spherical) == pytest.approx([-5, 12], rel=1e-6)


def test_a_spherical_line_turns_evenly_while_its_norm_changes_linearly() -> None:
    third = np.pi / 6  # of a right angle
    expected = [(3 - 2 / 3) * np.cos(third), (3 - 2 / 3) * np.sin(third)]
    assert between(A, B, np.array([1 / 3]), spherical=True)[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_a_spherical_line_between_nearly_opposite_latents_stays_at_their_norms() -> None:
    middle = np.array(line((1, 0), (-10, 1e-3), 0.5, spherical=True))
    assert np.linalg.norm(middle) == pytest.approx(5.5, rel=1e-6)


@pytest.mark.parametrize("other", [(2, 2), (-1, -1), (0, 0)], ids=["parallel", "opposite", "zero"])
def test_a_spherical_line_without_a_plane_is_straight(other) -> None:
    assert line((1, 1), other, 0.5, spherical=True) == line((1, 1), other, 0.5)


def test_draws_are_rounded_once() -> None:
    indices = np.array([5, 2**64 - 1], np.uint64)
    noise = Addresses(seeds=np.full(2, 7, np.uint64), indices=indices).normals(Stream.LATENT, 3).astype(np.float64)
    mean, spread = np.full((2, 3), 0.1, np.float32), np.full((2, 3), 0.3, np.float32)
    exact = mean.astype(np.float64) + spread.astype(np.float64) * noise
    assert draw_posterior(mean, spread, 7, indices).tobytes() == exact.astype(np.float32).tobytes()
    exact = mean.astype(np.float64) + 0.3 * noise
    assert draw_around(mean, 0.3, 7, indices).tobytes() == exact.astype(np.float32).tobytes()


def test_a_latent_without_spread_is_its_mean() -> None:
    assert draw_posterior(A, np.zeros_like(A), 7, np.zeros(1, np.uint64)).tolist() == [[3, 0]]


def test_a_walk_adds_amounts_of_a_direction() -> None:
    moved = walk(A.repeat(2, axis=0), np.array([0.5, -1.0]), np.array([-2.0, 2.0]))
    assert moved.tolist() == [[2, 2], [4, -2]]
