"""Small data sets of every format, written as the tools of the format write them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fount.readers import DataError, Dataset, DatasetSource, read_dataset

__all__ = [
    "LABELS",
    "PIXELS",
    "check_damage_is_refused",
    "png",
    "read",
    "refusal",
    "rows",
    "to_idx",
    "write_folder",
    "write_idx",
    "write_npz",
]

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
"""Six images of 5×4 pixels."""

LABELS = np.array([0, 1, 2, 0, 1, 2])


def to_idx(array: NDArray[np.generic]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, *, test: bool = True) -> Path:
    """Six grey images for training, and the first three again for testing."""
    folder.mkdir(exist_ok=True)
    for prefix, count in (("train", 6), ("t10k", 3))[: 2 if test else 1]:
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(to_idx(PIXELS[:count, ..., 0]))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(to_idx(LABELS[:count]))
    return folder


def write_npz(folder: Path, **arrays) -> Path:
    np.savez(folder / "toy.npz", **arrays)
    return folder / "toy.npz"


def png(image: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write_folder(root: Path, names: tuple[str, ...] = ("ant", "bee", "cat")) -> Path:
    """ROOT/CLASS/N.png: rows 0 and 3, 1 and 4, 2 and 5."""
    for row, label in enumerate(LABELS):
        (root / names[label]).mkdir(parents=True, exist_ok=True)
        (root / names[label] / f"{row}.png").write_bytes(png(PIXELS[row]))
    return root


def read(path: Path, **settings) -> Dataset:
    return read_dataset(DatasetSource(name="toy", path=path, **settings))


def rows(dataset: Dataset, split: str = "train") -> NDArray[np.uint8]:
    """Every image of a split."""
    return dataset.splits[split].images(np.arange(len(dataset.splits[split])))


def refusal(path: Path, **settings) -> str:
    """The error message of a data set that is read completely."""
    with pytest.raises(DataError) as refused:
        _ = read(path, **settings).digest
    return str(refused.value)


def check_damage_is_refused(path: Path, file: Path, *, seed: int) -> None:
    """Damage a file at random, and require that reading either succeeds or raises DataError, which it does often."""
    generator, sound, refused = np.random.default_rng(seed), file.read_bytes(), 0
    for _ in range(150):
        file.write_bytes(_damaged(sound, generator))
        try:
            _ = read(path).digest
        except DataError:
            refused += 1
    assert refused > 30


def _damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """Change some bytes, and truncate some files."""
    changed = np.frombuffer(data, np.uint8).copy()
    places = generator.integers(0, len(changed), generator.integers(1, 20))
    changed[places] = generator.integers(0, 256, len(places))
    return (
        changed[: generator.integers(1, len(changed) + 1)].tobytes() if generator.random() < 0.3 else changed.tobytes()
    )
