"""Puts measured quality into a card that somebody wrote: only its `quality` section changes, byte for byte.

A card may hold comments and entries of metrics that are not ours; both stay.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from handlers.cards.card import CARD_FILE, CardError, Problem, Quality, load_card
from handlers.recipes.run.whole_files import write_whole

__all__ = ["merge_quality", "write_quality"]

_SECTION = re.compile(r"^quality[ ]*:.*\n?(?:(?:[ \t#-].*)?\n)*(?:[ \t#-].*)?", re.MULTILINE)
_TRAILING = re.compile(r"(?:^[ \t]*(?:#.*)?\n)+\Z", re.MULTILINE)  # comments and gaps that belong to what follows


def merge_quality(old: tuple[Quality, ...], new: tuple[Quality, ...]) -> tuple[Quality, ...]:
    """Replace entries of the same metric where they stand, and append the others."""
    measured = {entry.metric: entry for entry in new}
    kept = tuple(measured.pop(entry.metric, entry) for entry in old)
    return (*kept, *measured.values())


def write_quality(folder: Path, quality: tuple[Quality, ...]) -> None:
    """Replace the quality section of a model's card; the card is there whole at any time.

    Args:
        folder: the model's.
        quality: all entries the card is to have.

    Raises:
        CardError: the card cannot be read, or its section cannot be told from the rest.
    """
    load_card(folder)
    file = folder / CARD_FILE
    with file.open(encoding="utf-8", newline="") as stream:
        text = stream.read()  # its line ends as they are
    plain = {"quality": [_to_plain(entry) for entry in quality]}
    section = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    new = _replace_section(text, section)
    if not _is_as_wanted(new, yaml.safe_load(text) | plain):  # the old card is whole until the new one is known to be
        remedy = "write it as a block, `quality:` and one `- metric: …` an entry, below a line of its own"
        raise CardError(file, [Problem(key="quality", wrong="cannot be told from its neighbours", remedy=remedy)])
    write_whole(file, new.encode())


def _is_as_wanted(text: str, wanted: object) -> bool:
    try:
        return bool(yaml.safe_load(text) == wanted)
    except yaml.YAMLError:
        return False


def _replace_section(text: str, section: str) -> str:
    found = _SECTION.search(text)
    if found is None:
        return text + "\n" * (not text.endswith("\n")) + section
    rest = _TRAILING.search(found.group())
    return text[: found.start()] + section + (rest.group() if rest else "") + text[found.end() :]


def _to_plain(entry: Quality) -> dict[str, Any]:
    plain: dict[str, Any] = {"metric": entry.metric, "value": entry.value, "interval": list(entry.interval)}
    if entry.real_value is not None:
        plain["real_value"] = entry.real_value
    return plain | {"method": entry.method}
