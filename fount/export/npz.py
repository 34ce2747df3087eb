"""NPZ: one archive of arrays a part, as NumPy reads it."""

from __future__ import annotations

import zipfile
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.export.table import Table

__all__ = ["encode_npz"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip archive can say: equal rows make equal files


def encode_npz(table: Table) -> bytes:
    """Make an NPZ file of a part: `images`, one array a column, and the names that ids stand for.

    label and group are ids, source is a code of `fount.v1.Source`; -1 or NaN where a row has none.
    """
    arrays: dict[str, NDArray[Any]] = {"images": table.images, **table.columns}
    arrays["classes"] = np.array(table.contents.classes, np.str_)
    if table.contents.groups:
        arrays["groups"] = np.array(table.contents.groups, np.str_)
    sink = BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return sink.getvalue()
