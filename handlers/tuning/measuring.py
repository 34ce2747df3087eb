"""Measuring: the workers of one candidate, started, brought to the line together, and timed while all of them run.

Workers run in fresh processes, so that nothing of one candidate, neither threads nor memory nor kernels chosen, is left
for the next. Enters: an unpacked archive and a candidate. Leaves: what its workers did together, or why it is dropped.
No torch here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from handlers.tuning.candidates import Candidate, Goal

__all__ = ["Measurement", "best_first", "measure", "to_document", "to_table"]


_SMALL = 8  # rows of the batch that latency is judged by
_START_S = 900.0  # compiling for every size on a slow machine


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a candidate did.

    Attributes:
        candidate: the way of running.
        dropped: why it cannot be used; "" when it can.
        golden: how far golden samples are from the recorded ones.
        per_second: rows a second at each executed size, all workers together.
        seconds: of one batch at each, the slowest worker's.
    """

    candidate: Candidate
    dropped: str = ""
    golden: str = ""
    per_second: Mapping[int, float] = field(default_factory=dict)
    seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def best_batch(self) -> int:
        """The size with the most rows a second."""
        return max(self.per_second, key=lambda size: self.per_second[size])

    @property
    def best_per_second(self) -> float:
        """Rows a second at the best size."""
        return self.per_second[self.best_batch]

    @property
    def small_batch(self) -> int:
        """The size latency is judged by: 8, or the smallest there is."""
        return _SMALL if _SMALL in self.seconds else min(self.seconds)

    @property
    def small_s(self) -> float:
        """Seconds of a batch of that size."""
        return self.seconds[self.small_batch]


def best_first(measurements: Sequence[Measurement], goal: Goal) -> list[Measurement]:
    """Sort what can be used: by rows a second, or by the time of a small batch; ties by the other."""

    def throughput(one: Measurement) -> tuple[float, float]:
        return -one.best_per_second, one.small_s

    def latency(one: Measurement) -> tuple[float, float]:
        return one.small_s, -one.best_per_second

    usable = [one for one in measurements if not one.dropped]
    return sorted(usable, key=latency if goal == "latency" else throughput)


def measure(candidate: Candidate, folder: Path, state_dir: Path, seconds: float) -> Measurement:
    """Measure one candidate.

    Args:
        candidate: how to run.
        folder: an unpacked archive.
        state_dir: where workers keep profiles; those measured here serve the real ones.
        seconds: how long all workers run at once.
    """
    environment = os.environ | candidate.environment | {"FOUNT_STATE_DIR": str(state_dir)}
    environment.pop("FOUNT_WORKER_CONFIG", None)
    with contextlib.ExitStack() as stack:
        workers = []
        for _ in range(candidate.workers):
            # One after the other: the first leaves its profile, and its machine code, for those after it.
            workers.append(stack.enter_context(_started(folder, seconds, environment)))
            loaded = _read_event(*workers[-1])
            if loaded.get("reason"):
                return Measurement(candidate=candidate, dropped=loaded["reason"])
        for process, _ in workers:
            _say_go(process)
        times = [_read_event(*worker) for worker in workers]
    if reasons := [one["reason"] for one in times if "reason" in one]:
        return Measurement(candidate=candidate, dropped=reasons[0])
    medians = [{int(size): spent for size, spent in one["seconds"].items()} for one in times]
    return Measurement(
        candidate=candidate,
        golden=loaded["golden"],
        per_second={size: sum(size / one[size] for one in medians) for size in medians[0]},
        seconds={size: max(one[size] for one in medians) for size in medians[0]},
    )


_Worker = tuple[subprocess.Popen[bytes], IO[bytes]]


@contextlib.contextmanager
def _started(folder: Path, seconds: float, environment: Mapping[str, str]) -> Iterator[_Worker]:
    """Start a worker; it is gone afterwards, whatever it was doing, and does not outlast its time."""
    command = [sys.executable, "-P", "-m", "handlers.tuning.child", str(folder), str(seconds)]
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed
        )
        limit = threading.Timer(_START_S + 2 * seconds, process.kill)
        limit.start()
        try:
            yield process, printed
        finally:
            limit.cancel()
            process.kill()
            process.communicate()


def _say_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died, which reading from it will tell
        process.stdin.write(b"go\n")
        process.stdin.flush()


def _read_event(process: subprocess.Popen[bytes], printed: IO[bytes]) -> dict[str, Any]:
    """Read a worker's next event; when it has died, the reason is what it printed last."""
    assert process.stdout is not None
    if line := process.stdout.readline():
        event: dict[str, Any] = json.loads(line)
        return event
    printed.seek(0)
    said = printed.read().decode(errors="replace").strip().splitlines()
    return {"reason": f"its process ended with status {process.wait()}{f': {said[-1]}' if said else ''}"}


# FOLDED FROM handlers.tuning.measuring:
# The report of `fount tune`: a table for people, a document for programs.


_HEADER = ("workers", "threads", "precision", "layout", "compiled", "per second", "batch", "ms for 8", "golden samples")
_TEXT_COLUMNS = (2, 3, 4, 8)


def to_table(ordered: Sequence[Measurement], dropped: Sequence[Measurement]) -> str:
    """Write what was measured, best first, then what was dropped and why."""
    rows = [_HEADER, *(_row(one) for one in ordered)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(_align(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"dropped: {one.candidate}: {one.dropped}" for one in dropped)])


def to_document(
    model: str, ordered: Sequence[Measurement], dropped: Sequence[Measurement], written: Path | None
) -> dict[str, Any]:
    """Make the JSON document."""
    return {
        "model": model,
        "written": str(written) if written else None,
        "best": dataclasses.asdict(ordered[0].candidate) if ordered else None,
        "measured": [_measured(one) for one in ordered],
        "dropped": [dataclasses.asdict(one.candidate) | {"reason": one.dropped} for one in dropped],
    }


def _row(one: Measurement) -> tuple[str, ...]:
    how = one.candidate
    note = "" if one.small_batch == 8 else f" (for {one.small_batch})"
    return (
        str(how.workers),
        str(how.threads),
        how.precision,
        how.layout,
        "yes" if how.compiled else "no",
        f"{one.best_per_second:,.0f}",
        str(one.best_batch),
        f"{1000 * one.small_s:.2f}{note}",
        one.golden,
    )


def _align(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text.ljust(width) if column in _TEXT_COLUMNS else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _measured(one: Measurement) -> dict[str, Any]:
    return dataclasses.asdict(one.candidate) | {
        "per_second": {str(size): rate for size, rate in one.per_second.items()},
        "seconds_per_batch": {str(size): seconds for size, seconds in one.seconds.items()},
        "best_batch": one.best_batch,
        "golden": one.golden,
    }
