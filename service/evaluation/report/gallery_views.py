"""Pictures as the page lays them out: how large they are shown, and what is written beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["noise_view", "sheet_width", "tile_width"]

_SMALLEST_SHOWN, _LARGEST_SHOWN = 48, 96  # CSS pixels of a tile's width

Json = Mapping[str, Any]


def tile_width(size: Sequence[int], smallest: int = _SMALLEST_SHOWN) -> int:
    """How wide a tile of (height, width) is shown, in CSS pixels: the least whole multiple that can be seen."""
    width = int(size[1])
    times = -(-smallest // width)
    return min(width * times, max(width, _LARGEST_SHOWN))


def sheet_width(sheet: Json, smallest: int = _SMALLEST_SHOWN) -> int:
    """How wide a sheet is shown, so that its tiles have their own width."""
    scale: float = tile_width(sheet["size"], smallest) / sheet["size"][1]
    return round(scale * _pixels(sheet, "columns", 1))


def noise_view(figure: Json, classes: Sequence[str]) -> dict[str, Any] | None:
    """The sheet of one noise under every label, with the cells in which the classifier reads another one."""
    sheet = figure["sheet"]
    if sheet is None:
        return None
    columns: Sequence[int] = figure["classes"]
    cells = [
        {"asked": classes[asked], "read": None if read < 0 else classes[read], "wrong": read != asked}
        for row in figure["predicted"]
        for asked, read in zip(columns, row, strict=True)
    ]
    return {
        "sheet": sheet,
        "names": [classes[each] for each in columns],
        "cells": cells,
        "right": sum(not cell["wrong"] for cell in cells),
        "in_all": len(columns) + figure["classes_left_out"],
        "column_gap": round(100 * sheet["gap"] / _pixels(sheet, "columns", 1), 3),
        "row_gap": round(100 * sheet["gap"] / _pixels(sheet, "rows", 0), 3),
    }


def _pixels(sheet: Json, tiles: str, side: int) -> int:
    """A sheet's own pixels along one side."""
    pitch: int = sheet["size"][side] + sheet["gap"]
    return int(sheet[tiles]) * pitch - int(sheet["gap"])
