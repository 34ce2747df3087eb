"""Findings of `fount check`, and their report as text and as JSON.

A finding is the result of one check. Checks create findings in a child process, which sends them to the command as
JSON. This module does not import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from fount.cli.output.text import plain
from fount.documents import record

__all__ = ["Finding", "State", "failed", "finding_to_text", "has_failed", "join_first", "passed", "report_to_json",
           "skipped", "verdict", "warned"]  # fmt: skip

State = Literal["passed", "warned", "failed", "skipped"]

_MARKS: dict[State, str] = {"passed": "✓", "warned": "!", "failed": "✗", "skipped": "–"}
_ASCII_MARKS: dict[State, str] = {"passed": "ok", "warned": "!", "failed": "X", "skipped": "-"}
_NAME_WIDTH = 14
_INDENT = " " * (_NAME_WIDTH + 3)


@record
class Finding:
    """The result of one check.

    Attributes:
        check: the check's name, as in `handlers.checks.registry.CHECKS`.
        state: passed; warned: the model may still be packed; failed; skipped: the check could not run.
        seen: what was measured or found, with numbers; lines after the first are details.
        change: what to change; an optional improvement when the check passed; "" for nothing.
        blocks: whether checks that depend on this one cannot run.
        numbers: measured values, for programs that read the JSON report.
    """

    check: str
    state: State
    seen: str
    change: str = ""
    blocks: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)


def passed(check: str, seen: str, *, change: str = "", numbers: Mapping[str, float] | None = None) -> Finding:
    """Create the finding of a check that passed; `change` is an optional improvement."""
    return Finding(check=check, state="passed", seen=seen, change=change, numbers=numbers or {})


def warned(check: str, seen: str, change: str, *, numbers: Mapping[str, float] | None = None) -> Finding:
    """Create a finding for something that is probably wrong but may be intended."""
    return Finding(check=check, state="warned", seen=seen, change=change, numbers=numbers or {})


def failed(
    check: str, seen: str, change: str, *, blocks: bool = False, numbers: Mapping[str, float] | None = None
) -> Finding:
    """Create a finding for something that must be changed before the model can be served."""
    return Finding(check=check, state="failed", seen=seen, change=change, blocks=blocks, numbers=numbers or {})


def skipped(check: str, why: str, *, blocks: bool = False) -> Finding:
    """Create the finding of a check that did not run."""
    return Finding(check=check, state="skipped", seen=why, blocks=blocks)


def join_first(names: Sequence[str], most: int) -> str:
    """Join the first names with commas, and the number of the others: "a, b, 3 more"."""
    others = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *others])


def finding_to_text(finding: Finding, *, unicode: bool = True) -> str:
    """Format one finding: its mark and name, what was seen, and below it what to change.

    What a model's code wrote cannot move the cursor or colour the terminal. `unicode` tells whether the mark may be
    another character than ASCII.
    """
    marks = _MARKS if unicode else _ASCII_MARKS
    seen = finding.seen.replace("\n", f"\n{_INDENT}")
    text = f"{marks[finding.state]:<2} {finding.check:<{_NAME_WIDTH}}{seen}"
    if finding.change:
        word = "could: " if finding.state == "passed" else "change: "
        text += f"\n{_INDENT}{word}" + finding.change.replace("\n", f"\n{_INDENT}{' ' * len(word)}")
    return "\n".join(map(plain, text.split("\n")))


def has_failed(findings: Sequence[Finding]) -> bool:
    """Whether any check failed, so that the model may not be packed."""
    return any(finding.state == "failed" for finding in findings)


def verdict(name: str, findings: Sequence[Finding], next_command: str) -> str:
    """Summarise all findings in one or two lines, with the next command."""
    failures = [finding.check for finding in findings if finding.state == "failed"]
    warnings = [finding.check for finding in findings if finding.state == "warned"]
    if failures:
        return f"{name} failed {', '.join(failures)}: change what is named above, then check again."
    with_warnings = ""
    if warnings:
        with_warnings = f" with {len(warnings)} warning{'s' * (len(warnings) > 1)} ({', '.join(warnings)})"
    return f"{name} passed{with_warnings}.\nNext: {next_command}"


def report_to_json(folder: Path, findings: Sequence[Finding], next_command: str) -> dict[str, Any]:
    """Create the document that `fount check --json` prints."""
    failure = has_failed(findings)
    return {
        "folder": str(folder),
        "verdict": "failed" if failure else "passed",
        "next": None if failure else next_command,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
