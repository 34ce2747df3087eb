"""Names of classes and groups: their one spelling, Unicode's composed form NFC, and the class that a text stands for.

The same name may be written in several ways: macOS decomposes `é` in file names into a letter and an accent, keyboards
type one character. Readers, cards, plans and requests pass every name through here, so that both are one class.

Source: Unicode Standard Annex #15, "Unicode Normalization Forms".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["class_index", "indices_of", "normal_name", "numbers_read_as_names", "parse_index"]

_INDEX = re.compile("#?(0|[1-9][0-9]{0,9})")


def normal_name(name: str) -> str:
    """Return a name in NFC."""
    return unicodedata.normalize("NFC", name)


def indices_of(names: Sequence[str]) -> dict[str, int]:
    """Return the index of each name, to look up many; of one that occurs twice, the first."""
    return {names[index]: index for index in reversed(range(len(names)))}


def class_index(text: str, names: Sequence[str], indices: Mapping[str, int] | None = None) -> int | None:
    """Find the class that a text stands for: the class of this name; else the one at this index, as "2" or "#2".

    Args:
        text: as a user wrote it.
        names: of the classes by index, in NFC.
        indices: of the names, from `indices_of`; None: the names are searched, which is faster for one text.

    Returns:
        The index of the class; None if there is none.
    """
    name = normal_name(text)
    found = indices.get(name) if indices is not None else names.index(name) if name in names else None
    if found is not None:
        return found
    index = parse_index(text)
    return index if index is not None and index < len(names) else None


def parse_index(text: str) -> int | None:
    """Read the index of a class, "2" or "#2"; None for other text: "02" can only be a name."""
    found = _INDEX.fullmatch(text)
    return int(found[1]) if found else None


def numbers_read_as_names(texts: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the numbers that `class_index` reads as the name of a class, and that are the index of another."""
    numbers = [text for text in texts if text in names and not text.startswith("#")]
    indices = [(text, parse_index(text)) for text in numbers]
    return [text for text, index in indices if index is not None and names.index(text) != index < len(names)]
