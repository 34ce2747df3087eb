"""Quality from an evaluation's report: the numbers a gateway found, as entries of a card.

The JSON report that `fount evaluate --report FILE.json` writes enters; entries leave, if it is of this very model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handlers.cards.card import Card, Quality, model_digest
from handlers.recipes.quality.measure_model import CannotMeasure

__all__ = ["read_report"]

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
