"""Findings: what one check saw, and what to change.

Checks make them in a child process, and they cross to the command as JSON, so they hold plain values alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from handlers.checks.subject import Subject
from handlers.execution.pixels import Float32s

__all__ = [
    "Finding",
    "State",
    "apart",
    "failed",
    "finding_from_json",
    "finding_to_json",
    "passed",
    "skipped",
    "told_apart",
    "warned",
]


State = Literal["passed", "warned", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name, as in `handlers.checks.registry.CHECKS`.
        state: passed; warned, which the model may be packed with; failed; skipped, because it could not run.
        seen: what was measured or met, with numbers; lines after the first are details.
        change: what to change; for a check that passed, what could be; empty when there is nothing.
        blocks: whether checks that build on this one cannot run.
        numbers: what was measured, for programs.
    """

    check: str
    state: State
    seen: str
    change: str = ""
    blocks: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)


def passed(check: str, seen: str, *, change: str = "", numbers: Mapping[str, float] | None = None) -> Finding:
    """Say that all is well; `change` is what could be better."""
    return Finding(check=check, state="passed", seen=seen, change=change, numbers=numbers or {})


def warned(check: str, seen: str, change: str, *, numbers: Mapping[str, float] | None = None) -> Finding:
    """Say what looks wrong, but may be meant."""
    return Finding(check=check, state="warned", seen=seen, change=change, numbers=numbers or {})


def failed(
    check: str, seen: str, change: str, *, blocks: bool = False, numbers: Mapping[str, float] | None = None
) -> Finding:
    """Say what must be changed before the model can be served."""
    return Finding(check=check, state="failed", seen=seen, change=change, blocks=blocks, numbers=numbers or {})


def skipped(check: str, why: str, *, blocks: bool = False) -> Finding:
    """Say why a check did not run."""
    return Finding(check=check, state="skipped", seen=why, blocks=blocks)


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """Turn a finding into what JSON can say."""
    return dataclasses.asdict(finding) | {"numbers": dict(finding.numbers)}


def finding_from_json(document: Mapping[str, Any]) -> Finding:
    """Undo `finding_to_json`.

    Raises:
        TypeError: keys are missing or unknown.
    """
    return Finding(**document)


# FOLDED FROM handlers.checks.finding:
# Differences between two results that should be alike, in numbers and in words.


def apart(first: Float32s, second: Float32s) -> float:
    """The largest difference; a value that is not finite in one of both alone counts as infinitely far."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(first - second)
    differences[(first == second) | (np.isnan(first) & np.isnan(second))] = 0
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))


def told_apart(subject: Subject, difference: float) -> str:
    """Say a difference in levels for pictures, and as it is for other results."""
    if not subject.samples:
        return f"{difference:.3g}"
    return f"{subject.levels(difference):.3g} levels of 255"
