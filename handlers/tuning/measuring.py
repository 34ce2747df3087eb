"""Measure candidates: ways to run one model on this machine, each timed with all of its workers running.

Workers run in fresh processes, so that no threads, memory or chosen kernels of one candidate affect the next. An
unpacked archive and a candidate enter; a measurement leaves, or why the candidate is dropped. Nothing here imports
torch.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import IO, Annotated, Literal, TypeVar

from pydantic import TypeAdapter

from fount.documents import check, record
from fount.environment import child_environment, python_command
from handlers.execution.causes import find_in_output
from handlers.settings import Layout, Precision

__all__ = ["Candidate", "Goal", "Measurement", "best_first", "list_candidates", "measure"]

Goal = Literal["throughput", "latency"]

_LAYOUTS: tuple[Layout, ...] = ("nchw", "nhwc")
_SMALL = 8  # rows of the batch that latency is measured with
_START_S = 900.0  # limit for starting; compiling for every size is slow on some machines
_MAX_EVENT_BYTES = 2**20
_MAX_READ_BYTES = 2**16  # of what a worker printed, at its end
_Worker = tuple[subprocess.Popen[bytes], IO[bytes]]
_Event = TypeVar("_Event")


class _Dropped(Exception):
    """A candidate cannot be used. The message says why."""


@record
class _Loaded:
    """A worker's first event: why it cannot serve, and the difference of its golden samples."""

    reason: str
    golden: str


@record
class _Timed:
    """A worker's second event: the median seconds of a batch of each size."""

    seconds: Annotated[dict[int, float], check(lambda each: each and min(each.values()) > 0, "positive")]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to run a model.

    Attributes:
        workers: processes that run at the same time.
        threads: of one operation, in each.
        precision: of weights and activations.
        layout: memory layout of images.
        compiled: whether the network is compiled.
        folded: whether batch normalisation is folded.
    """

    workers: int
    threads: int
    precision: Precision
    layout: Layout
    compiled: bool
    folded: bool = True

    def __str__(self) -> str:
        changes = f"{'' if self.folded else ', unfolded'}{', compiled' if self.compiled else ''}"
        return f"{self.workers}×{self.threads}, {self.precision}, {self.layout}{changes}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a worker's process."""
        return {
            "FOUNT_WORKER_THREADS": str(self.threads),
            "FOUNT_WORKER_PRECISION": self.precision,
            "FOUNT_WORKER_LAYOUT": self.layout,
            "FOUNT_WORKER_FOLDED": str(int(self.folded)),
            "FOUNT_WORKER_COMPILED": str(int(self.compiled)),
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "PASSIVE",
        }


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The measurement of one candidate.

    Attributes:
        candidate: the way of running.
        dropped: why it cannot be used; "" when it can.
        golden: the difference of golden samples from the recorded ones.
        per_second: rows per second at each executed size, all workers together.
        seconds: of one batch at each size, of the slowest worker.
    """

    candidate: Candidate
    dropped: str = ""
    golden: str = ""
    per_second: Mapping[int, float] = field(default_factory=dict)
    seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def best_batch(self) -> int:
        """The size with the most rows per second."""
        return max(self.per_second, key=lambda size: self.per_second[size])

    @property
    def best_per_second(self) -> float:
        """Rows per second at the best size."""
        return self.per_second[self.best_batch]

    @property
    def single_s(self) -> float:
        """Seconds of one row: those of the smallest executed size."""
        return self.seconds[min(self.seconds)]

    @property
    def small_batch(self) -> int:
        """The size that latency is measured with: 8, or the smallest executed size."""
        return _SMALL if _SMALL in self.seconds else min(self.seconds)

    @property
    def small_s(self) -> float:
        """Seconds of a batch of that size."""
        return self.seconds[self.small_batch]


def list_candidates(cores: int, precisions: Sequence[Precision], *, can_compile: bool) -> list[Candidate]:
    """List the candidates to measure, those that start quickly first.

    Args:
        cores: processors this process may use.
        precisions: those the card allows.
        can_compile: whether there is a C++ compiler.

    Returns:
        One worker of one thread, and every power-of-two number of workers whose threads use all cores (rounded down to
        a power of two); each in all precisions and layouts. The first is unfolded, to show what folding gains.
    """
    full = 1 << (cores.bit_length() - 1)
    shares = [(1 << power, full >> power) for power in range(full.bit_length())]
    ways = product((False, True) if can_compile else (False,), dict.fromkeys([(1, 1), *shares]), precisions, _LAYOUTS)
    unfolded = Candidate(workers=1, threads=1, precision="fp32", layout="nchw", compiled=False, folded=False)
    return [unfolded] * ("fp32" in precisions) + [
        Candidate(workers=workers, threads=threads, precision=precision, layout=layout, compiled=compiled)
        for compiled, (workers, threads), precision, layout in ways
    ]


def best_first(measurements: Sequence[Measurement], goal: Goal) -> list[Measurement]:
    """Sort the usable measurements by rows per second or by the time of a small batch; ties by the other."""

    def throughput(one: Measurement) -> tuple[float, float]:
        return -one.best_per_second, one.small_s

    def latency(one: Measurement) -> tuple[float, float]:
        return one.small_s, -one.best_per_second

    usable = [one for one in measurements if not one.dropped]
    return sorted(usable, key=latency if goal == "latency" else throughput)


def measure(
    candidate: Candidate, folder: Path, state_dir: Path, seconds: float, worker_env: Sequence[str] = ()
) -> Measurement:
    """Measure one candidate.

    Args:
        candidate: how to run.
        folder: an unpacked archive.
        state_dir: where workers store profiles; served workers reuse those measured here.
        seconds: how long all workers run at the same time.
        worker_env: variables they get in addition to those that every worker gets.
    """
    environment = child_environment(worker_env) | candidate.environment | {"FOUNT_STATE_DIR": str(state_dir)}
    environment.pop("FOUNT_WORKER_CONFIG", None)
    try:
        with contextlib.ExitStack() as stack:
            workers = []
            for _ in range(candidate.workers):
                # One after the other: the later ones reuse the profile and the machine code of the first.
                workers.append(stack.enter_context(_start(folder, seconds, environment)))
                loaded = _read_event(_Loaded, *workers[-1])
                if loaded.reason:
                    raise _Dropped(loaded.reason)
            for process, _ in workers:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it died, and reading from it reports that
                    process.stdin.write(b"go\n")
                    process.stdin.flush()
            medians = [_read_event(_Timed, *worker).seconds for worker in workers]
    except _Dropped as error:
        return Measurement(candidate=candidate, dropped=str(error))
    if any(one.keys() != medians[0].keys() for one in medians):
        return Measurement(candidate=candidate, dropped="its workers ran batches of different sizes")
    return Measurement(
        candidate=candidate,
        golden=loaded.golden,
        per_second={size: sum(size / one[size] for one in medians) for size in medians[0]},
        seconds={size: max(one[size] for one in medians) for size in medians[0]},
    )


@contextlib.contextmanager
def _start(folder: Path, seconds: float, environment: Mapping[str, str]) -> Iterator[_Worker]:
    """Start a worker; it is killed at the end of the context, or when it exceeds its time."""
    command = python_command("-m", "handlers.tuning.child", str(folder), str(seconds))
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


def _read_event(kind: type[_Event], process: subprocess.Popen[bytes], printed: IO[bytes]) -> _Event:
    """Read a worker's next event.

    Raises:
        _Dropped: it died, which the last error it printed explains; or the model's code wrote to the events.
    """
    assert process.stdout is not None
    if line := process.stdout.readline(_MAX_EVENT_BYTES):
        try:
            return TypeAdapter(kind).validate_json(line)
        except ValueError:
            raise _Dropped("the model's code wrote something else to the pipe of the measurement") from None
    size = printed.seek(0, os.SEEK_END)
    printed.seek(max(0, size - _MAX_READ_BYTES))
    cause = find_in_output(printed.read(_MAX_READ_BYTES).decode(errors="replace"))
    raise _Dropped(f"its process ended with status {process.wait()}{f': {cause}' if cause else ''}")
