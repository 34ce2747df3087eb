"""MNIST with one class cut: the same files, fewer training rows; the test rows stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handlers.recipes.data.load import load_data

__all__ = ["CUT_CLASS", "KEPT_SHARE", "write_cut_mnist"]

CUT_CLASS = 8
KEPT_SHARE = 0.01


def write_cut_mnist(source: Path, folder: Path) -> int:
    """Write the four IDX files with class 8 cut to its first 1 %.

    Args:
        source: the folder of the real files.
        folder: where the cut ones go; made when absent.

    Returns:
        How many rows of the cut class are left.

    Raises:
        DataError: the real files are missing or damaged.
    """
    data = load_data("mnist", source)
    folder.mkdir(parents=True, exist_ok=True)
    left = 0
    for split, prefix in ((data.train, "train"), (data.test, "t10k")):
        images = np.rint(split.images[:, 0].numpy() * 255).astype(np.uint8)  # (N, 1, H, W) -> (N, H, W)
        labels = split.labels.numpy().astype(np.uint8)
        if prefix == "train":
            of_class = np.flatnonzero(labels == CUT_CLASS)
            left = round(len(of_class) * KEPT_SHARE)
            kept = np.ones(len(labels), np.bool_)
            kept[of_class[left:]] = False
            images, labels = images[kept], labels[kept]
        _write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return left


def _write_idx(file: Path, values: NDArray[np.uint8]) -> None:
    """Write unsigned bytes: magic 0, 0, 8, dimensions; big-endian extents; the bytes."""
    header = bytes([0, 0, 8, values.ndim]) + np.asarray(values.shape, ">u4").tobytes()
    file.write_bytes(header + values.tobytes())
