"""Files that commands read and write, and the parts of their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import Result
from PIL import Image

from tests.contract.commands import fount as run_fount

__all__ = ["arrays", "draw", "error_of", "fount", "saved", "size", "tiles"]

_ACROSS, _DOWN = 108 + 8, 72 + 18 + 8  # of a tile of 2×3 pixels, 36 times as large, with its margin and caption


def draw(name: str, image: np.ndarray) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(name)


def fount(line: str, **options) -> Result:
    """Run a command that succeeds."""
    result = run_fount(*line.split(), **options)
    assert result.exit_code == 0, result.stderr
    return result


def error_of(line: str) -> str:
    """The message of a command that fails without a traceback, and writes nothing to stdout."""
    result = run_fount(*line.split())
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    return result.stderr.split("Error: ")[1].strip()


def saved(**values) -> str:
    np.savez("in.npz", **values)
    return "in.npz"


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(name, allow_pickle=False) as file:
        return dict(file)


def size(name: str) -> tuple[int, int]:
    """How many tiles of 2×3 pixels a grid has, in a line and in a column."""
    with Image.open(name) as picture:
        return (picture.width - 8) // _ACROSS, (picture.height - 8) // _DOWN


def tiles(name: str) -> np.ndarray:
    """The pixels of every tile: (lines, columns, 2, 3)."""
    columns, lines = size(name)
    with Image.open(name) as picture:
        pixels = np.asarray(picture)
    left, top = 8 + 18 + 36 * np.arange(3), 8 + 18 + 18 + 36 * np.arange(2)  # the middles of pixels
    found = [
        [pixels[np.ix_(top + line * _DOWN, left + column * _ACROSS)] for column in range(columns)]
        for line in range(lines)
    ]
    return np.array(found)
