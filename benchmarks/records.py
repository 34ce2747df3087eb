"""Records: the measurements of one workload and contender in one round, and medians over rounds.

The table is computed from records alone, so it can be computed again from `latest.json`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Record", "Records", "ratio_by_round"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement.

    Attributes:
        round: 0 for the first.
        precision: "fp32" or "bf16".
        workload: a name of `plan.WORKLOADS`, or "limit".
        contender: "limit", "torchserve", "mosec", "litserve", "fount", or "fount-bare" (through generated stubs).
        layout: workers × threads, as "1×2"; of a peer with its wait, as "1×2, wait 1 ms".
        values: measured values, by name with unit.
    """

    round: int
    precision: str
    workload: str
    contender: str
    layout: str
    values: Mapping[str, float] = field(default_factory=dict)


class Records:
    """All records of a run."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def rounds(self, precision: str, workload: str, contender: str, layout: str, value: str) -> dict[int, float]:
        """Select a value by round; rounds without it are left out."""
        key = (precision, workload, contender, layout)
        return {
            each.round: each.values[value]
            for each in self._records
            if (each.precision, each.workload, each.contender, each.layout) == key
            and not math.isnan(each.values.get(value, math.nan))
        }

    def median(self, precision: str, workload: str, contender: str, layout: str, value: str) -> float:
        """Compute the median over rounds; NaN without values."""
        found = self.rounds(precision, workload, contender, layout, value)
        return statistics.median(found.values()) if found else math.nan

    def layouts(self, precision: str, workload: str, contender: str) -> list[str]:
        """List the layouts of a contender, in measured order."""
        key = (precision, workload, contender)
        found = [each.layout for each in self._records if (each.precision, each.workload, each.contender) == key]
        return list(dict.fromkeys(found))

    def best_layout(
        self,
        precision: str,
        workload: str,
        contender: str,
        value: str,
        choose: Callable[..., float] = max,
    ) -> str | None:
        """Find the layout with the best median of a value; None when it was not measured."""
        medians = {
            layout: self.median(precision, workload, contender, layout, value)
            for layout in self.layouts(precision, workload, contender)
        }
        known = {layout: median for layout, median in medians.items() if not math.isnan(median)}
        return next((layout for layout in known if known[layout] == choose(known.values())), None)

    def precisions(self) -> Sequence[str]:
        """List the measured precisions, in order."""
        return list(dict.fromkeys(each.precision for each in self._records))


def ratio_by_round(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Compute the ratios of values in the same round, since a disturbance affects both."""
    return [ours[each] / theirs[each] for each in sorted(ours.keys() & theirs.keys()) if theirs[each]]
