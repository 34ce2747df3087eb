"""What is to be read as a data set, and how much at most.

Configuration or a training recipe makes a `DatasetSource`; the readers take their settings from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DatasetSource", "Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a data set may hold; what announces more is refused before it is unpacked.

    Attributes:
        max_bytes: decompressed pixels of all splits together.
        max_pixels: of one picture, before it is resized.
        max_classes: different labels.
        max_rows: rows of all splits together.
    """

    max_bytes: int = 4 << 30
    max_pixels: int = 16 << 20
    max_classes: int = 10_000
    max_rows: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Where a data set lies and how it is read.

    Attributes:
        name: what requests will call it.
        path: its file or folder; None for the built-in one.
        format: one of `fount.readers.FORMATS`, or "auto": told by what lies at the path.
        classes: names of the labels 0, 1, ...; of a folder or string labels, the names to expect, in the order wanted.
            Empty: as the files say, or the numbers themselves.
        group: the group column of a Parquet file or array of an NPZ file. Empty: "group" or "groups" where it is there.
        held_out: the share of every class that is cut off as "test" when the files have no such split; None: none is.
        size: (height, width) every image is resized to; None: they have one size.
        channels: 1 or 3, which every image is converted to; None: as the first image has.
        licence: of the data.
        limits: how much it may hold.
    """

    name: str
    path: Path | None = None
    format: str = "auto"
    classes: tuple[str, ...] = ()
    group: str = ""
    held_out: float | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    licence: str = ""
    limits: Limits = Limits()
