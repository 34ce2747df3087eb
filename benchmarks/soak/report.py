"""The counts of a soak and its report: Markdown for readers, JSON for programs, and the verdict."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report", "Tally", "memory_growth_mib", "progress_line"]

MAX_GROWTH_MIB = 32.0
"""Allowed growth of the gateway's memory from the first third of the time to the last."""

_MAX_VIOLATIONS = 50
_NUMBERS = re.compile(r"\d+(\.\d+)?")  # replaced, since they make every reason different


@dataclass(kw_only=True)
class Tally:
    """Counts of all events.

    Attributes:
        start: on the clock of `time.monotonic`.
        ok: completed requests with correct bytes, by kind of client.
        retried: those of them with more than one attempt.
        failures: failed attempts, by kind of client and status.
        reasons: messages of failed attempts, and how often.
        vanished: clients that disconnected in the middle of a request.
        samples, bytes_compared: received and compared.
        bytes_wrong: bytes that differed.
        hangs: calls still open well after their deadline.
        violations: descriptions; any violation fails the soak.
        kills: by fault.
        recoveries: seconds from a fault until every worker was ready again, by fault.
        memory: (seconds since the start, MiB) of the gateway.
    """

    start: float = field(default_factory=time.monotonic)
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
        """Seconds since the start."""
        return time.monotonic() - self.start

    def completed(self, kind: str, *, retried: bool) -> None:
        """Count a completed request."""
        self.ok[kind] += 1
        self.retried[kind] += retried

    def failed(self, kind: str, status: str, reason: str) -> None:
        """Count a failed attempt."""
        self.failures[kind, status] += 1
        self.reasons[f"{status}: {_NUMBERS.sub('…', reason)}"] += 1

    def received(self, samples: int, size: int) -> None:
        """Count compared samples and bytes."""
        self.samples += samples
        self.bytes_compared += size

    def hang(self, description: str) -> None:
        """Record a call that did not end."""
        self.hangs += 1
        self.violate(description)

    def violate(self, description: str) -> None:
        """Record a violation."""
        if len(self.violations) < _MAX_VIOLATIONS:
            self.violations.append(f"{self.elapsed_s:.0f} s: {description}")

    def recovered(self, fault: str, seconds: float) -> None:
        """Record the time of a recovery."""
        self.recoveries.setdefault(fault, []).append(seconds)

    def statuses(self) -> Counter[str]:
        """Count failed attempts by status."""
        counted = Counter[str]()
        for (_, status), count in self.failures.items():
            counted[status] += count
        return counted


def memory_growth_mib(memory: list[tuple[float, float]], warm_up: float = 0.2) -> float:
    """Compute the growth of memory from the first third of the time after the warm-up to the last.

    Args:
        memory: (seconds, MiB), in order.
        warm_up: share of the time at the start that is left out.

    Returns:
        Median of the last third minus median of the first; 0 when there are too few values.
    """
    if not memory:
        return 0.0
    start, end = memory[0][0], memory[-1][0]
    warm = [mib for seconds, mib in memory if seconds >= start + warm_up * (end - start)]
    third = len(warm) // 3
    return statistics.median(warm[-third:]) - statistics.median(warm[:third]) if third else 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a soak.

    Attributes:
        tally: all counts.
        minutes, seed, models, workers: options of the run; workers are processes of each model.
        load_s, load_samples: duration of the load under faults, and samples received in it.
    """

    tally: Tally
    minutes: float
    seed: int
    models: tuple[str, ...]
    workers: int
    load_s: float
    load_samples: int

    @property
    def growth_mib(self) -> float:
        """Growth of the gateway's memory."""
        return memory_growth_mib(self.tally.memory)

    @property
    def faults(self) -> list[str]:
        """Reasons why the soak failed; empty when it passed."""
        tally = self.tally
        found = list(tally.violations)
        if tally.bytes_wrong:
            found.append(f"{tally.bytes_wrong} of {tally.bytes_compared} bytes were wrong")
        if self.growth_mib > MAX_GROWTH_MIB:
            found.append(f"the gateway's memory grew by {self.growth_mib:.0f} MiB, more than {MAX_GROWTH_MIB:g}")
        if not tally.ok:
            found.append("no request was completed")
        return found

    def to_json(self) -> dict[str, Any]:
        """Convert everything to plain values."""
        tally = self.tally
        return {
            "minutes": self.minutes, "seed": self.seed, "models": list(self.models), "workers_a_model": self.workers,
            "load_s": self.load_s, "passed": not self.faults, "faults": self.faults,
            "requests_ok": dict(tally.ok), "requests_retried": dict(tally.retried),
            "attempts_failed": {f"{kind} {status}": count for (kind, status), count in sorted(tally.failures.items())},
            "reasons": dict(tally.reasons.most_common(20)),
            "clients_vanished": tally.vanished, "samples": tally.samples, "bytes_compared": tally.bytes_compared,
            "bytes_wrong": tally.bytes_wrong, "hangs": tally.hangs, "kills": dict(tally.kills),
            "recoveries_s": tally.recoveries, "gateway_growth_mib": self.growth_mib, "gateway_memory_mib": tally.memory,
        }  # fmt: skip

    def to_markdown(self) -> str:
        """Format one page."""
        tally, faults = self.tally, self.faults
        verdict = "**failed**" if faults else "passed"
        lines = [
            f"# Soak: {verdict}", "",
            f"{' and '.join(self.models)}, {self.workers} workers each, {self.load_s:.0f} s of full load under faults, "
            f"seed {self.seed}.", "",
            "| | |", "|---|---|",
            f"| samples received, every byte compared | {tally.samples:,}, {self.load_samples / self.load_s:,.0f}/s |",
            f"| bytes compared, of them wrong | {tally.bytes_compared:,}, **{tally.bytes_wrong}** |",
            f"| requests complete and correct | {tally.ok.total():,}, of them {tally.retried.total():,} retried |",
            f"| calls that hung | **{tally.hangs}** |",
            f"| clients that disconnected | {tally.vanished:,} |",
            f"| gateway's memory | {self._memory()} |", "",
            "| client | complete and correct | retried | failed attempts |", "|---|---|---|---|",
            *map(self._client_row, sorted(tally.ok | {kind: 0 for kind, _ in tally.failures})), "",
            "| fault | times | all workers ready again after |", "|---|---|---|",
            *(f"| {fault} | {count} | {_recovery(tally.recoveries.get(fault, []))} |"
              for fault, count in sorted(tally.kills.items())), "",
        ]  # fmt: skip
        if tally.reasons:
            lines += ["| reason of failed attempts | times |", "|---|---|"]
            lines += [f"| {reason} | {count} |" for reason, count in tally.reasons.most_common(10)] + [""]
        return "\n".join(lines + [f"- {fault}" for fault in faults] + [""] * bool(faults))

    def _client_row(self, kind: str) -> str:
        failed = [f"{count} {status}" for (of, status), count in sorted(self.tally.failures.items()) if of == kind]
        return f"| {kind} | {self.tally.ok[kind]:,} | {self.tally.retried[kind]} | {', '.join(failed) or '–'} |"

    def _memory(self) -> str:
        if not self.tally.memory:
            return "not measured"
        most = max(mib for _, mib in self.tally.memory)
        return f"at most {most:.0f} MiB; from the first third, warmed up, to the last: **{self.growth_mib:+.1f} MiB**"


def progress_line(tally: Tally, workers: str) -> str:
    """Format the progress in one line."""
    failed = ", ".join(f"{count} {status}" for status, count in sorted(tally.statuses().items())) or "none"
    kills = ", ".join(f"{fault} {count}" for fault, count in sorted(tally.kills.items())) or "none yet"
    memory = f"{tally.memory[-1][1]:.0f} MiB" if tally.memory else "?"
    return (f"{tally.elapsed_s:5.0f} s  {tally.samples:>10,} samples, {tally.ok.total():,} requests correct, "
            f"{tally.bytes_wrong} bytes wrong, {tally.hangs} hangs; failed attempts: {failed}; faults: {kills}; "
            f"workers {workers}, gateway {memory}")  # fmt: skip


def _recovery(seconds: list[float]) -> str:
    if not seconds:
        return "–"
    return f"median {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"
