"""Between rows of the table of evaluations and the values that the service has of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from service.domain import Parameters
from service.evaluation.jobs.record import Progress, Record, State
from service.evaluation.results import GateOutcome, Metric, PanelResult
from service.evaluation.specification import FORMAT, PinnedModel, Specification

__all__ = ["read_record", "to_text"]

_LISTS = ("metrics", "panels", "gates")


def to_text(values: Sequence[Metric | PanelResult | GateOutcome]) -> str:
    """As a column keeps them."""
    return json.dumps([each.to_json() for each in values], separators=(",", ":"), allow_nan=False)


def read_record(row: sa.RowMapping, keep_s: float) -> Record:
    """One evaluation; lists that were not selected are empty.

    Args:
        row: columns by name.
        keep_s: how long evaluations are kept once they have ended.
    """
    lists = {name: json.loads(row.get(name, "[]")) for name in _LISTS}
    return Record(
        id=row["id"],
        subject=row["subject"],
        request_id=row["request_id"] or "",
        request_digest=row["request_digest"],
        specification=_read_specification(json.loads(row["specification"]), row["model"]),
        state=State(row["state"]),
        reason=row["reason"],
        progress=Progress(stage=row["stage"], done=row["done"], total=row["total"], update_unix_s=row["update_unix_s"]),
        metrics=tuple(Metric.from_json(each) for each in lists["metrics"]),
        panels=tuple(PanelResult.from_json(each) for each in lists["panels"]),
        gates=tuple(GateOutcome.from_json(each) for each in lists["gates"]),
        create_unix_s=row["create_unix_s"],
        start_unix_s=row["start_unix_s"],
        end_unix_s=row["end_unix_s"],
        expire_unix_s=row["end_unix_s"] + keep_s if row["end_unix_s"] else 0.0,
        report_bytes=row["report_bytes"],
    )


def _read_specification(value: Mapping[str, Any], model: str) -> Specification:
    """To show, not to run: one of another format is read as far as it can be."""
    try:
        read = Specification.from_json({**value, "format": FORMAT})
    except ValueError:
        return _nothing_but(model, value.get("format"))
    return replace(read, format=value["format"])


def _nothing_but(model: str, made_with: Any) -> Specification:
    unknown = PinnedModel(name="", version="", digest="", numerics="")
    return Specification(
        model=replace(unknown, name=model),
        model_labels=(),
        extractor=unknown,
        classifier=unknown,
        classifier_labels=(),
        dataset="",
        dataset_digest="",
        training_split="",
        held_out_split="",
        training_rows=0,
        held_out_rows=0,
        classes=(),
        image_shape=(0, 0, 0),
        count=0,
        seed=0,
        parameters=Parameters(),
        panels=(),
        gates=(),
        code_version="",
        format=made_with if isinstance(made_with, int) else 0,
    )
