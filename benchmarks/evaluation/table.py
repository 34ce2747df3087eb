"""From speeds and oracle numbers to rows and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from benchmarks.rows import Bound, Row

__all__ = ["Compared", "Timed", "oracles_to_markdown", "speed_to_row"]


class Timed(Protocol):
    """A statistic that was timed beside another library's, on the same arrays; medians over interleaved rounds."""

    @property
    def name(self) -> str:
        """What was computed, with its sizes."""
        ...

    @property
    def library(self) -> str:
        """Who else computed it."""
        ...

    @property
    def seconds_ours(self) -> float:
        """How long this package took."""
        ...

    @property
    def seconds_theirs(self) -> float:
        """How long the library took."""
        ...


class Compared(Protocol):
    """A number that was computed twice."""

    @property
    def metric(self) -> str:
        """What of."""
        ...

    @property
    def library(self) -> str:
        """Whose number `theirs` is."""
        ...

    @property
    def theirs(self) -> float:
        """The library's."""
        ...

    @property
    def ours(self) -> float:
        """This package's."""
        ...

    @property
    def difference(self) -> float:
        """Relative."""
        ...


def speed_to_row(timed: Timed) -> Row:
    """How many times faster; 1 is as fast."""
    return Row(
        workload=timed.name, precision="float64", value=_seconds(timed.seconds_ours),
        reference=f"{timed.library} {_seconds(timed.seconds_theirs)}", ratio=timed.seconds_theirs / timed.seconds_ours,
        bound=Bound(must=1.0),
    )  # fmt: skip


def oracles_to_markdown(rows: Sequence[Compared]) -> str:
    """A row a number."""
    lines = ["| number | library | theirs | Fount | relative difference |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.metric} | {row.library} | {row.theirs:.10g} | {row.ours:.10g} | {_difference(row.difference)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _difference(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
