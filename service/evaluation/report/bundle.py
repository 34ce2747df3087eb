"""The bundle: everything a report may show, as compressed JSON without times; JSON reports are made from it.

Equal evaluations give equal bundles. It contains what only callers with a grant may see; that is left out of reports
for others.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.evaluation.record import Record
from service.evaluation.report.figures import FIGURES
from service.evaluation.results import GateOutcome, Metric, PanelResult
from service.evaluation.specification import Specification
from service.evaluation.verdicts import overall_sentence, overall_verdict

__all__ = ["FORMAT", "GRANT", "job_facts", "make_bundle", "read_bundle", "report_facts", "to_report_json"]

FORMAT = 1
"""Of the bundle and of JSON reports."""

GRANT = "view-training-neighbours"
"""The grant that a caller needs to see restricted figures."""

_RESTRICTED = frozenset(figure.name for figure in FIGURES if figure.restricted)
_COMPRESSION = 6
_DIGITS = 9


def make_bundle(
    *,
    specification: Specification,
    metrics: Sequence[Metric],
    panels: Sequence[PanelResult],
    gates: Sequence[GateOutcome],
    figures: Mapping[str, Any],
    failed: int,
    compared: int,
    real_rows: Mapping[str, Any],
) -> bytes:
    """Pack the results of an evaluation.

    Args:
        specification: of the evaluation.
        metrics: in the order of the report.
        panels: their verdicts.
        gates: their outcomes.
        figures: the data of each `Figure`, by its name.
        failed: how many samples could not be drawn or read.
        compared: how many samples were compared as a set.
        real_rows: which of them equal others, of `real_rows_json`.
    """
    content = {
        "format": FORMAT,
        "specification": specification.to_json(),
        "metrics": [each.to_json() for each in metrics],
        "panels": [each.to_json() for each in panels],
        "gates": [each.to_json() for each in gates],
        "figures": dict(figures),
        "failed": failed,
        "compared": compared,
        "real_rows": real_rows,
    }
    return zlib.compress(_canonical(content), _COMPRESSION)


def read_bundle(bundle: bytes) -> dict[str, Any]:
    """Unpack the result of `make_bundle`.

    Raises:
        ValueError: it is damaged, or of another format.
    """
    try:
        content = json.loads(zlib.decompress(bundle))
    except (zlib.error, ValueError) as error:
        raise ValueError(f"it is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}, which this code reads")
    return content


def report_facts(bundle: bytes, *, redacted: bool) -> dict[str, Any]:
    """Return everything a report shows except times and ids; without restricted figures where it is redacted.

    Raises:
        ValueError: as `read_bundle`.
    """
    content = read_bundle(bundle)
    figures: dict[str, Any] = content["figures"]
    panels = [PanelResult.from_json(each) for each in content["panels"]]
    hidden = sorted(_RESTRICTED & figures.keys()) if redacted else []
    envelope = {key: value for key, value in content["specification"].items() if key != "format"}
    return {
        "format": FORMAT,
        "redacted": redacted,
        "left_out": [{"figure": name, "grant": GRANT} for name in hidden],
        "verdict": overall_verdict(panels).value,
        "sentence": overall_sentence(panels),
        "gates_passed": all(gate["passed"] for gate in content["gates"]),
        "panels": [each.to_json() for each in panels],
        "gates": content["gates"],
        "metrics": content["metrics"],
        "figures": {name: value for name, value in figures.items() if name not in hidden},
        "real_rows": content.get("real_rows", {}),
        "envelope": envelope | {"failed": content["failed"], "compared": content["compared"]},
    }


def to_report_json(bundle: bytes, *, redacted: bool, record: Record) -> bytes:
    """Make the JSON report: one object, ASCII; times and the id are in its `job` alone.

    Raises:
        ValueError: as `read_bundle`.
    """
    return _canonical(report_facts(bundle, redacted=redacted) | {"job": job_facts(record)}) + b"\n"


def job_facts(record: Record) -> dict[str, str | None]:
    """Return the id, and when the job was created, started and ended: UTC, to the second; None: not known."""
    times = {"created": record.create_unix_s, "started": record.start_unix_s, "ended": record.end_unix_s}
    return {"id": record.id} | {name: _format_time(unix_s) if unix_s else None for name, unix_s in times.items()}


def _format_time(unix_s: float) -> str:
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _canonical(content: Any) -> bytes:
    text = json.dumps(_rounded(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _rounded(value: Any) -> Any:
    """Round numbers to nine digits, so that they do not depend on the number of threads; None if not finite."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
