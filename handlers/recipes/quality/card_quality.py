"""The `quality` section of a card: read entries from an evaluation report, merge them, and write them into the card.

The JSON report that `fount evaluate --report FILE.json` writes enters, if it is of the same model; the card's file
leaves, in which only the `quality` section is changed. Comments and entries of other metrics are kept.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fount.documents import DocumentError
from fount.files import atomic_write
from fount.json_text import parse_json
from fount.plain_yaml import dump_yaml, load_yaml
from handlers.cards.card import CARD_FILE, Card, CardError, Problem, Quality, load_card, to_plain
from handlers.cards.digests import model_digest
from handlers.recipes.quality.measure_model import MeasurementError
from handlers.recipes.quality.measures import quality_entry

__all__ = ["merge_quality", "read_report", "write_quality"]

_FORMAT = 1
_ALWAYS = frozenset({"fid"})
"""Metrics that decide no verdict and are reported all the same, since models are compared by them."""

_NOT_MEASURABLE = "not-measurable"

_SECTION = re.compile(r"^quality[ ]*:.*\n?(?:(?:[ \t#-].*)?\n)*(?:[ \t#-].*)?", re.MULTILINE)
_TRAILING = re.compile(r"(?:^[ \t]*(?:#.*)?\n)+\Z", re.MULTILINE)  # comments and gaps that belong to the next section


def read_report(file: Path, card: Card, folder: Path) -> tuple[Quality, ...]:
    """Read the metrics that decide verdicts, and FID, from a JSON report of the model.

    Raises:
        MeasurementError: the file is no report, or damaged, or of another format or model, or metrics in it are not
            measurable.
    """
    try:
        report = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise MeasurementError(f"{file} cannot be read: {error}; name a JSON report of `fount evaluate`") from error
    if not isinstance(report, dict) or not {"envelope", "metrics"} <= report.keys():
        raise MeasurementError(f"{file} is no report; write one with `fount evaluate NAME --report FILE.json`")
    if report.get("format") != _FORMAT:
        raise MeasurementError(
            f"{file} has format {report.get('format')!r}, this version reads {_FORMAT}; evaluate again"
        )
    try:
        return _to_entries(report, file, card, folder)
    except (KeyError, TypeError, ValueError) as error:
        wrong = f"{file} is a damaged report ({type(error).__name__}: {error})"
        raise MeasurementError(f"{wrong}; write it again with `fount evaluate NAME --report FILE.json`") from error


def merge_quality(old: tuple[Quality, ...], new: tuple[Quality, ...]) -> tuple[Quality, ...]:
    """Replace entries of the same metric in place, and append the others."""
    measured = {entry.metric: entry for entry in new}
    kept = tuple(measured.pop(entry.metric, entry) for entry in old)
    return (*kept, *measured.values())


def _to_entries(report: Mapping[str, Any], file: Path, card: Card, folder: Path) -> tuple[Quality, ...]:
    envelope = report["envelope"]
    model = envelope["model"]
    if model["digest"] != (digest := model_digest(card, folder)):
        raise MeasurementError(
            f"{file} is of {model['name']} {model['version']} with digest {model['digest']}; "
            f"{card.name} {card.version} here has {digest}; evaluate this one"
        )
    if unmeasured := [metric["name"] for metric in report["metrics"] if metric.get("verdict") == _NOT_MEASURABLE]:
        raise MeasurementError(
            f"{file} could not measure {', '.join(unmeasured)}, since its held-out rows are unfit; see its verdicts, "
            "and evaluate again with another held-out split"
        )
    conditions = (
        f"{envelope['count']} samples of seed {envelope['seed']} against {envelope['dataset']}, "
        f"{envelope['training_rows']} training and {envelope['held_out_rows']} held-out rows, "
        f"read by {envelope['extractor']['name']}; the real value is of real rows in the place of samples"
    )
    return tuple(
        _to_entry(metric, conditions)
        for metric in report["metrics"]
        if metric["interval"] and None not in (metric["value"], *metric["interval"])  # a bound alone is no value
        if metric["decides"] or metric["name"] in _ALWAYS
    )


def write_quality(folder: Path, quality: tuple[Quality, ...]) -> None:
    """Replace the quality section of the card in a model folder atomically.

    Raises:
        CardError: the card cannot be read, or its section cannot be separated from the rest.
    """
    load_card(folder)
    file = folder / CARD_FILE
    with file.open(encoding="utf-8", newline="") as stream:
        text = stream.read()  # with its line ends
    plain = {"quality": to_plain(quality)}
    new, is_equal = _replace_section(text, dump_yaml(plain)), False
    with contextlib.suppress(DocumentError):
        is_equal = load_yaml(new) == load_yaml(text) | plain
    if not is_equal:
        remedy = "write it as a block, `quality:` and one `- metric: …` an entry, below a line of its own"
        raise CardError(file, [Problem(key="quality", wrong="cannot be separated from other sections", remedy=remedy)])
    atomic_write(file, new.encode())


def _to_entry(metric: Mapping[str, Any], conditions: str) -> Quality:
    real = metric["null"]["mean"] if metric["null"] else None
    name, method = metric["name"].replace("_", "-"), f"evaluation: {metric['method']}; {conditions}"
    return quality_entry(name, metric["value"], metric["interval"], real, method)


def _replace_section(text: str, section: str) -> str:
    found = _SECTION.search(text)
    if found is None:
        return text + "\n" * (not text.endswith("\n")) + section
    rest = _TRAILING.search(found.group())
    return text[: found.start()] + section + (rest.group() if rest else "") + text[found.end() :]
