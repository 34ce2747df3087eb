"""The report of a soak: Markdown for people, JSON for programs, and the verdict."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.soak_tally import Tally, memory_growth_mib

__all__ = ["Report", "progress_line"]

MOST_GROWTH_MIB = 32.0
"""The gateway's memory is flat when its last third is within this of its first."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        tally: what was counted.
        minutes, seed, models, workers: how it was run; workers are processes a model.
        load_s, load_samples: how long the load ran under faults, and what came meanwhile.
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
        """By how much the gateway's memory grew."""
        return memory_growth_mib(self.tally.memory)

    @property
    def faults(self) -> list[str]:
        """Why the soak failed; empty when it did not."""
        tally = self.tally
        found = list(tally.violations)
        if tally.bytes_wrong:
            found.append(f"{tally.bytes_wrong} of {tally.bytes_compared} bytes were wrong")
        if self.growth_mib > MOST_GROWTH_MIB:
            found.append(f"the gateway's memory grew by {self.growth_mib:.0f} MiB, more than {MOST_GROWTH_MIB:g}")
        if not tally.ok:
            found.append("no request was answered")
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
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
        """The same for people, in one page."""
        tally, faults = self.tally, self.faults
        verdict = "**failed**" if faults else "passed"
        lines = [
            f"# Soak: {verdict}", "",
            f"{' and '.join(self.models)}, {self.workers} workers each, {self.load_s:.0f} s of full load under faults, "
            f"seed {self.seed}.", "",
            "| | |", "|---|---|",
            f"| samples received, every byte compared | {tally.samples:,}, {self.load_samples / self.load_s:,.0f}/s |",
            f"| bytes compared, of them wrong | {tally.bytes_compared:,}, **{tally.bytes_wrong}** |",
            f"| requests whole and right | {tally.ok.total():,}, of them {tally.retried.total():,} asked again |",
            f"| calls that hung | **{tally.hangs}** |",
            f"| clients that vanished | {tally.vanished:,} |",
            f"| gateway's memory | {self._memory()} |", "",
            "| client | whole and right | asked again | attempts that failed |", "|---|---|---|---|",
            *map(self._client_row, sorted(tally.ok | {kind: 0 for kind, _ in tally.failures})), "",
            "| fault | times | all workers ready again after |", "|---|---|---|",
            *(f"| {what} | {count} | {_recovery(tally.recoveries.get(what, []))} |"
              for what, count in sorted(tally.kills.items())), "",
        ]  # fmt: skip
        if tally.reasons:
            lines += ["| why attempts failed | times |", "|---|---|"]
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
    """One line while it runs."""
    failed = ", ".join(f"{count} {status}" for status, count in sorted(tally.statuses().items())) or "none"
    kills = ", ".join(f"{what} {count}" for what, count in sorted(tally.kills.items())) or "none yet"
    memory = f"{tally.memory[-1][1]:.0f} MiB" if tally.memory else "?"
    return (f"{tally.elapsed_s:5.0f} s  {tally.samples:>10,} samples, {tally.ok.total():,} requests right, "
            f"{tally.bytes_wrong} bytes wrong, {tally.hangs} hangs; failed attempts: {failed}; faults: {kills}; "
            f"workers {workers}, gateway {memory}")  # fmt: skip


def _recovery(seconds: list[float]) -> str:
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.1f} s in the median, {max(seconds):.1f} s at most"
