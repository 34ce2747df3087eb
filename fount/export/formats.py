"""The formats an export can have: how each names its files, and what makes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from fount.errors import MissingExtra
from fount.export.folder import encode_folder
from fount.export.npz import encode_npz
from fount.export.parquet import encode_parquet
from fount.export.table import Table
from fount.export.webdataset import encode_webdataset

__all__ = ["DATA", "FORMATS", "Format"]

DATA = "data"
"""The folder in an export that holds its rows."""

Save = Callable[[str, bytes], None]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to write rows.

    Attributes:
        name: what --format calls it.
        ending: of its files; empty when each row is a file of its own, and a part the list of them.
        encode: makes the file of a part; files of single rows are given to its second argument.
        needs: a package that is not always installed; empty when there is none.
    """

    name: str
    ending: str
    encode: Callable[[Table, Save], bytes]
    needs: str = ""

    def require(self) -> None:
        """See that all it needs is installed.

        Raises:
            MissingExtra: it is not.
        """
        if not self.needs:
            return
        try:
            import_module(self.needs)
        except ModuleNotFoundError as error:
            raise MissingExtra.of(command="pull", extra=self.name, missing=self.needs) from error

    def file_of(self, number: int, parts: int, split: str) -> str:
        """Name a part's file within the export.

        Hugging Face knows the split by such names: data/train-00003-of-00010.parquet.

        Args:
            number: which part.
            parts: how many there are.
            split: what the rows are called together; only letters, digits and "_" of it are kept.
        """
        if not self.ending:
            return f".fount/rows/{number:05d}.csv"
        return f"{DATA}/{re.sub(r'[^A-Za-z0-9_]+', '_', split) or 'rows'}-{number:05d}-of-{parts:05d}{self.ending}"


FORMATS = {
    format.name: format
    for format in (
        Format(
            name="parquet", ending=".parquet", encode=lambda table, _: encode_parquet(table), needs="pyarrow.parquet"
        ),
        Format(name="webdataset", ending=".tar", encode=lambda table, _: encode_webdataset(table)),
        Format(name="npz", ending=".npz", encode=lambda table, _: encode_npz(table)),
        Format(name="folder", ending="", encode=encode_folder),
    )
}
"""Every format by its name."""
