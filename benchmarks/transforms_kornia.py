"""Fount's transforms compared with kornia's: the same kinds and ranges, one thread, ratios of least times.

Not part of `make bench`, since kornia is not a dependency. Install it in any folder:
`pip install --target DIR kornia && PYTHONPATH=.:DIR python -m benchmarks.transforms_kornia`.
Times of both include drawing the parameters.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from torch import Tensor

from fount.address import Addresses
from fount.transforms import Kind, Policy, Transform, draw
from handlers.models.transforms import Transforms

__all__ = ["main"]

_ROWS, _ROUNDS = 256, 10
_SHAPES = ((28, 28, 1), (64, 64, 3))
_OURS = {
    "geometry": (
        Transform(kind=Kind.FLIP_HORIZONTAL, probability=0.5), Transform(kind=Kind.ROTATE, max=15),
        Transform(kind=Kind.SHEAR, max=10), Transform(kind=Kind.ZOOM, min=0.9, max=1.1),
        Transform(kind=Kind.SHIFT, max=2 / 28),
    ),
    "shade": (Transform(kind=Kind.BRIGHTNESS, min=-0.1, max=0.1), Transform(kind=Kind.CONTRAST, min=0.8, max=1.2)),
    "noise": (Transform(kind=Kind.NOISE, min=0.05, max=0.05),),
    "erase": (Transform(kind=Kind.ERASE, min=0.02, max=0.2),),
}  # fmt: skip


def main() -> None:
    """Print one line for each kind and shape."""
    torch.set_num_threads(1)
    ours, theirs = dict(_OURS), _kornia()
    ours["all"] = tuple(transform for kind in _OURS.values() for transform in kind)
    for shape in _SHAPES:
        for name, transforms in ours.items():
            mine, other = _time_ours(transforms, shape), _time_kornia(theirs[name], shape)
            click.echo(f"{shape} {name:<9} ours {mine:6.2f} ms  kornia {other:6.2f} ms  ratio {other / mine:.2f}")


def _kornia() -> dict[str, Callable[[Tensor], Tensor]]:
    k = importlib.import_module("kornia.augmentation")
    kinds = {
        "geometry": [
            k.RandomHorizontalFlip(p=0.5),
            k.RandomAffine(15, translate=(2 / 28, 2 / 28), scale=(0.9, 1.1), shear=10, p=1.0),
        ],
        "shade": [k.RandomBrightness((0.9, 1.1), p=1.0), k.RandomContrast((0.8, 1.2), p=1.0)],
        "noise": [k.RandomGaussianNoise(std=0.05, p=1.0)],
        "erase": [k.RandomErasing(scale=(0.02, 0.2), p=1.0)],
    }
    kinds["all"] = [each for kind in kinds.values() for each in kind]
    return {name: k.AugmentationSequential(*each) for name, each in kinds.items()}


def _images(shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (_ROWS, *shape), np.uint8))


def _time_ours(transforms: tuple[Transform, ...], shape: tuple[int, int, int]) -> float:
    family, policy, images = Transforms.from_config({}), Policy(transforms=transforms), _images(shape)
    addresses = Addresses.of_range(7, 0, _ROWS)
    return _least_ms(lambda: family.transform(images, draw(policy, addresses), addresses))


def _time_kornia(sequence: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> float:
    images = _images(shape)

    def run() -> Tensor:
        floats = sequence(images.permute(0, 3, 1, 2).float().div(255))
        return (floats * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    return _least_ms(run)


@torch.inference_mode()
def _least_ms(run: Callable[[], Tensor]) -> float:
    run()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


if __name__ == "__main__":
    main()
