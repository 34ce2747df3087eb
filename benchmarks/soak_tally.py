"""What a soak counts: requests by how they ended, bytes, violations, kills, recoveries, memory over time."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Tally", "memory_growth_mib"]

_MOST_TOLD = 50
_NUMBERS = re.compile(r"\d+(\.\d+)?")  # which would make every reason another


@dataclass(kw_only=True)
class Tally:
    """Everything that happened.

    Attributes:
        begun: on the clock of `time.monotonic`.
        ok: requests whose every byte came and was right, by kind of client.
        retried: those of them that took more than one attempt.
        failures: attempts that failed, by kind of client and status.
        reasons: of those, in words, and how often.
        vanished: clients that went away in the middle.
        samples, bytes_compared: received, every one compared.
        bytes_wrong: bytes that differed.
        hangs: calls still open well after their deadline.
        violations: in words; anything here fails the soak.
        kills: by what was done.
        recoveries: seconds from a kill until every worker was ready again, by what was done.
        memory: (seconds since the beginning, MiB) of the gateway.
    """

    begun: float = field(default_factory=time.monotonic)
    ok: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    vanished: int = 0
    samples: int = 0
    bytes_compared: int = 0
    bytes_wrong: int = 0
    hangs: int = 0
    violations: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def answered(self, kind: str, *, retried: bool) -> None:
        """Count a whole request."""
        self.ok[kind] += 1
        self.retried[kind] += retried

    def failed(self, kind: str, status: str, reason: str) -> None:
        """Count an attempt that did not come to its end."""
        self.failures[kind, status] += 1
        self.reasons[f"{status}: {_NUMBERS.sub('…', reason)}"] += 1

    def received(self, samples: int, size: int) -> None:
        """Count what was compared."""
        self.samples += samples
        self.bytes_compared += size

    def wrong_bytes(self, count: int) -> None:
        """Count what differed."""
        self.bytes_wrong += count

    def hang(self, what: str) -> None:
        """Tell of a call that never ended."""
        self.hangs += 1
        self.violate(what)

    def violate(self, what: str) -> None:
        """Tell of anything that must not be."""
        if len(self.violations) < _MOST_TOLD:
            self.violations.append(f"{self.elapsed_s:.0f} s: {what}")

    def killed(self, what: str) -> None:
        """Count a fault that was made."""
        self.kills[what] += 1

    def recovered(self, what: str, seconds: float) -> None:
        """Tell how long it took until all was well again."""
        self.recoveries.setdefault(what, []).append(seconds)

    def statuses(self) -> Counter[str]:
        """Failed attempts by status."""
        counted = Counter[str]()
        for (_, status), count in self.failures.items():
            counted[status] += count
        return counted


def memory_growth_mib(memory: list[tuple[float, float]], warm_up: float = 0.2) -> float:
    """How much more memory the last third took than the first one, after the warm-up.

    Args:
        memory: (seconds, MiB), in order.
        warm_up: the share of the time at the beginning that does not count.

    Returns:
        Median of the last third less median of the first; 0 when there is too little to tell.
    """
    if not memory:
        return 0.0
    begun, ended = memory[0][0], memory[-1][0]
    warm = [mib for seconds, mib in memory if seconds >= begun + warm_up * (ended - begun)]
    third = len(warm) // 3
    return statistics.median(warm[-third:]) - statistics.median(warm[:third]) if third else 0.0
