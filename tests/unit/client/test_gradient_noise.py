"""Gradient noise: known bytes, range, zeros at lattice points, and rows that depend on their address alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fount.address import Addresses
from fount.gradient_noise import gradient_noise, sine_of_turn, turbulence

ADDRESSES = Addresses.of_range(7, 0, 5)


def test_the_noise_has_known_bytes_on_every_processor() -> None:
    noise = gradient_noise(ADDRESSES, 64, cell=16)
    assert (
        hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest()
        == "938f7b42b0f126fca5ebd46c3f5339a04d8dede1f05125926a967d9cea2565b4"
    )


def test_turbulence_has_known_bytes_on_every_processor() -> None:
    total = turbulence(ADDRESSES, 64, cell=32, octaves=4)
    assert (
        hashlib.sha256(total.astype("<f4").tobytes()).hexdigest()
        == "79a5a3c55f6f74f068abb40aba9403917ae5da46c0c4bfaf8bbc67ad8e0f0b13"
    )


def test_a_texture_depends_on_its_address_alone() -> None:
    assert (gradient_noise(ADDRESSES, 32, cell=8)[3] == gradient_noise(ADDRESSES.take(slice(3, 4)), 32, cell=8)).all()


def test_octaves_differ() -> None:
    first, second = (gradient_noise(ADDRESSES, 32, cell=8, octave=octave) for octave in (0, 1))
    assert np.abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


def test_noise_is_small_next_to_lattice_points_and_nowhere_above_one() -> None:
    noise = gradient_noise(Addresses.of_range(7, 0, 200), 64, cell=32)
    assert np.abs(noise).max() < 1
    assert np.abs(noise[:, ::32, ::32]).max() < 0.03  # half a pixel away, at a slope of 1
    assert noise.std() == pytest.approx(0.25, abs=0.05)


def test_noise_has_no_step_between_cells() -> None:
    noise = gradient_noise(Addresses.of_range(7, 0, 200), 64, cell=32)
    steps = np.abs(np.diff(noise, axis=2))
    assert steps[:, :, 31].max() < 1.5 * steps[:, :, 15].max()


@pytest.mark.parametrize("turns", [0.0, 0.25, 0.1, 7.9, -3.3])
def test_the_sine_is_that_of_the_angle(turns: float) -> None:
    assert sine_of_turn(np.array([turns], np.float32))[0] == pytest.approx(np.sin(2 * np.pi * turns), abs=1e-5)


def test_the_sine_of_just_under_a_turn_is_that_of_none() -> None:
    assert sine_of_turn(np.array([np.nextafter(np.float32(0), np.float32(-1))], np.float32))[0] == 0
