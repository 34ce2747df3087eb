"""Marble and wood: known bytes, edges that continue, labels, and configurations that are refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from fount.address import Addresses
from fount.gradient_noise import gradient_noise
from handlers.family import Deadline, Draw, Noise
from handlers.models.procedural_texture import ProceduralTexture

PLAIN, TILEABLE = 0, 1


def draw(kind: str, label: int, count: int = 8, start: int = 0) -> np.ndarray:
    """Textures of seed 1: (count, 64, 64, 3) in [0, 1]."""
    module = ProceduralTexture.from_config({"kind": kind, "side": 64})
    noise = Noise(addresses=Addresses.of_range(1, start, count), device=torch.device("cpu"))
    images = module.sample(noise, torch.full((count,), label), Draw(), Deadline())
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("kind", "label", "digest"),
    [
        ("marble", PLAIN, "9e6e4ff4dbb45919e1c5fde8f7081ef3b5fa16be2caf6df49fa5ddf9147b72c3"),
        ("marble", TILEABLE, "b8381d799fc64defd78833ba2b8047bd7081cefd9cea51d9e7cc4c1e79fcfec1"),
        ("wood", PLAIN, "c98be1d04499cef49f8380585a4a41ffe91195a136def4fe10d79a3ef8e78017"),
        ("wood", TILEABLE, "d82620d5a2340b161a0c08c98d4d8b29b6144dd57d22a10ddc58f165a6d44ad0"),
    ],
)
def test_an_address_has_the_same_bytes_on_every_processor(kind: str, label: int, digest: str) -> None:
    assert hashlib.sha256(draw(kind, label).astype("<f4").tobytes()).hexdigest() == digest


def seam(images: np.ndarray, axis: int) -> float:
    """The mean difference across the border over that between neighbours inside."""
    across = np.abs(images.take(0, axis) - images.take(-1, axis)).mean()
    return float(across / np.abs(np.diff(images, axis=axis)).mean())


@pytest.mark.parametrize("kind", ["marble", "wood"])
def test_edges_of_tileable_textures_continue_on_the_other_side(kind: str) -> None:
    plain, tileable = (draw(kind, label, 64) for label in (PLAIN, TILEABLE))
    for axis in (1, 2):
        assert 0.8 < seam(tileable, axis) < 1.25
        assert seam(plain, axis) > 1.6


def test_tiled_noise_continues_at_its_edges() -> None:
    addresses = Addresses.of_range(3, 0, 4)
    twice = np.tile(gradient_noise(addresses, 64, cell=16, tiled=True), (1, 2, 2))
    steps = np.abs(np.diff(twice, axis=2))
    assert steps[:, :, 63].max() <= steps.max()
    assert steps[:, :, 63].mean() < 1.5 * steps.mean()
    assert not np.array_equal(twice[:, :64, :64], gradient_noise(addresses, 64, cell=16))


@pytest.mark.parametrize("kind", ["marble", "wood"])
def test_a_texture_is_within_its_range_and_independent_of_others(kind: str) -> None:
    images = draw(kind, TILEABLE, 9)
    assert 0 <= images.min() < images.max() <= 1
    assert np.array_equal(images[5:6], draw(kind, TILEABLE, 1, start=5))
    assert len({image.tobytes() for image in images}) == 9


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"kind": "basket", "side": 64}, "kind is 'basket', must be one of"),
        ({"kind": "wood", "side": 50}, "side is 50, must be a multiple of 32"),
        ({"kind": "wood"}, "unknown or missing keys"),
    ],
    ids=["kind", "side", "missing"],
)
def test_a_wrong_configuration_is_refused(config: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ProceduralTexture.from_config(config)
