"""Quality from an evaluation's report: the numbers a gateway found, as entries of a card.

The JSON report that `fount evaluate --report FILE.json` writes enters; entries leave, if it is of this very model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from handlers.cards.card import CARD_FILE, Card, CardError, Problem, Quality, load_card
from handlers.cards.digests import model_digest
from handlers.recipes.quality.measure_model import CannotMeasure
from handlers.recipes.run.checkpoints import write_whole

__all__ = ["merge_quality", "read_report", "write_quality"]


_FORMAT = 1
_BESIDE = frozenset({"fid"})
"""Metrics that decide no verdict, and that people compare all the same."""


def read_report(file: Path, card: Card, folder: Path) -> tuple[Quality, ...]:
    """Read the metrics that verdicts rest on, and FID.

    Args:
        file: a JSON report.
        card: of the model it is to be about.
        folder: the model's.

    Raises:
        CannotMeasure: it is no report, of another format, or of another model; says which.
    """
    report = _load(file)
    told = report["envelope"]["model"]
    if told["digest"] != (digest := model_digest(card, folder)):
        raise CannotMeasure(
            f"{file} is of {told['name']} {told['version']} with digest {told['digest']}; "
            f"{card.name} {card.version} here has {digest}; evaluate this one"
        )
    where = _where(report["envelope"])
    return tuple(
        _entry(metric, where)
        for metric in report["metrics"]
        if metric["interval"] and None not in metric["interval"] and (metric["decides"] or metric["name"] in _BESIDE)
    )


def _load(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CannotMeasure(f"{file} cannot be read: {error}; name a JSON report of `fount evaluate`") from error
    if not isinstance(report, dict) or not {"envelope", "metrics"} <= report.keys():
        raise CannotMeasure(f"{file} is no report; write one by `fount evaluate NAME --report FILE.json`")
    if report.get("format") != _FORMAT:
        raise CannotMeasure(f"{file} has format {report.get('format')!r}, {_FORMAT} is read here; evaluate again")
    return report


def _where(envelope: Mapping[str, Any]) -> str:
    return (
        f"{envelope['count']} samples of seed {envelope['seed']} against {envelope['dataset']}, "
        f"{envelope['training_rows']} training and {envelope['held_out_rows']} held-out rows, "
        f"read by {envelope['extractor']['name']}; the real value is of real rows in the place of samples"
    )


def _entry(metric: Mapping[str, Any], where: str) -> Quality:
    low, high = metric["interval"]
    null = metric["null"]
    return Quality(
        metric=metric["name"].replace("_", "-"),
        value=round(metric["value"], 4),
        interval=(round(low, 4), round(high, 4)),
        real_value=None if null is None else round(null["mean"], 4),
        method=f"evaluation: {metric['method']}; {where}",
    )


# FOLDED FROM handlers.recipes.quality.from_report:
# Puts measured quality into a card that somebody wrote: only its `quality` section changes, byte for byte. A
# card may hold comments and entries of metrics that are not ours; both stay.


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
