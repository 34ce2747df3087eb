"""Reports: findings as a person reads them, and as a program does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handlers.checks.finding import Finding, State, finding_to_json

__all__ = ["finding_to_text", "has_failed", "report_to_json", "verdict"]

_MARKS: dict[State, str] = {"passed": "✓", "warned": "!", "failed": "✗", "skipped": "–"}
_PLAIN_MARKS: dict[State, str] = {"passed": "ok", "warned": "!", "failed": "X", "skipped": "-"}
_NAME_WIDTH = 14
_INDENT = " " * (_NAME_WIDTH + 3)


def finding_to_text(finding: Finding, encoding: str = "utf-8") -> str:
    """Write one finding: its mark and name, what was seen, and below what to change.

    Args:
        finding: the finding.
        encoding: of the terminal; what it cannot show is written otherwise.
    """
    marks = _MARKS if "utf" in encoding.lower() else _PLAIN_MARKS
    seen = finding.seen.replace("\n", f"\n{_INDENT}")
    text = f"{marks[finding.state]:<2} {finding.check:<{_NAME_WIDTH}}{seen}"
    if finding.change:
        word = "could: " if finding.state == "passed" else "change: "
        text += f"\n{_INDENT}{word}" + finding.change.replace("\n", f"\n{_INDENT}{' ' * len(word)}")
    return text.encode(encoding, errors="replace").decode(encoding)


def has_failed(findings: Sequence[Finding]) -> bool:
    """Whether the model may not be packed."""
    return any(finding.state == "failed" for finding in findings)


def verdict(name: str, findings: Sequence[Finding], next_command: str) -> str:
    """Sum up in one or two lines, with what to do next."""
    wrong = [finding.check for finding in findings if finding.state == "failed"]
    warnings = [finding.check for finding in findings if finding.state == "warned"]
    told = f" with {len(warnings)} warning{'s' * (len(warnings) > 1)} ({', '.join(warnings)})" if warnings else ""
    if wrong:
        return f"{name} failed {', '.join(wrong)}: change what is named above, then check again."
    return f"{name} passed{told}.\nNext: {next_command}"


def report_to_json(folder: Path, findings: Sequence[Finding], next_command: str) -> dict[str, Any]:
    """Make the document of `fount check --json`."""
    failed = has_failed(findings)
    return {
        "folder": str(folder),
        "verdict": "failed" if failed else "passed",
        "next": None if failed else next_command,
        "findings": [finding_to_json(finding) for finding in findings],
    }
