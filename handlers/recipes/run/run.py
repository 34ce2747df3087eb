"""The training run: a task's steps one after another, watched, drawn and put away, so that nothing loses them.

A task and where it writes enter; the task leaves trained, or an exception says how far it came and what to do. Looks
are taken and runs are stopped by step, so that they are the same every time; checkpoints, pictures and lines come by
the clock, and none of them touches the task's random numbers. So weights depend on neither.

A run's folder holds `checkpoints/`, `pictures/step-….png`, and `curves.png`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from handlers.recipes.run.checkpoints import (
    Checkpoint,
    CheckpointError,
    History,
    check_identity,
    has_checkpoint,
    load_checkpoint,
    newest_healthy,
    save_checkpoint,
)
from handlers.recipes.run.pictures import draw_curves, write_picture
from handlers.recipes.run.probes import Probe
from handlers.recipes.run.watch import Look, find_collapse, find_divergence, is_healthy
from handlers.recipes.tasks.task import Task

__all__ = [
    "LOOKS",
    "Clock",
    "Interruption",
    "Pace",
    "Paused",
    "Place",
    "Run",
    "TrainingFailed",
    "noticing_interruption",
]

# FOLDED FROM handlers.recipes.run.run:
# Being asked to stop: the first Ctrl-C or SIGTERM is noted, so that a run can put its state away; a second ends
# it.


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Which signal came, if any.

    Attributes:
        signal: the first that came; None so far.
    """

    signal: signal.Signals | None = None


@contextmanager
def noticing_interruption() -> Iterator[Interruption]:
    """Note the first signal instead of ending. Python allows that in the main thread alone; elsewhere none is noted."""
    seen = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        seen.signal = signal.Signals(number)
        put_back()

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        put_back()


# FOLDED FROM handlers.recipes.run.run:
# What comes by the clock in a training run: checkpoints, pictures, lines, and the end of its time. None of it
# touches the task, so a run that is drawn or put away more often has the same weights.


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What comes by the clock.

    Attributes:
        max_seconds: stop then; None is never.
        checkpoint_seconds: between two checkpoints.
        picture_seconds: between two pictures.
        first_picture_seconds: before the first.
        line_seconds: between two lines where there is no progress bar.
    """

    max_seconds: float | None = None
    checkpoint_seconds: float = 60.0
    picture_seconds: float = 180.0
    first_picture_seconds: float = 20.0
    line_seconds: float = 60.0


class Clock:
    """What is due in this process, counted from when the clock was made."""

    def __init__(self, pace: Pace) -> None:
        self._start = time.monotonic()
        self._last = {"picture": self._start + pace.first_picture_seconds - pace.picture_seconds}

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def is_due(self, what: str, every_s: float) -> bool:
        """Tell whether it is time, and if so count from now."""
        now = time.monotonic()
        if now - self._last.get(what, self._start) < every_s:
            return False
        self._last[what] = now
        return True


LOOKS = 40
"""How often a run is looked at."""

_SHOWN_EVERY = 20  # steps between two updates of the bar's losses
_OUT_OF_TIME = 75  # EX_TEMPFAIL of sysexits.h: try again later


class TrainingFailed(Exception):
    """Training diverged or collapsed. The message names a picture, the last healthy checkpoint, and what to change."""


class Paused(Exception):
    """Training was stopped and put away before its last step. The message says how to go on.

    Attributes:
        exit_code: for a command that ends so.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class Place:
    """Whose run it is and where it writes.

    Attributes:
        name: of the recipe.
        folder: of the run.
        identity: what its weights depend on.
        classes: names of the classes its probe looks at.
        remedy: what to change when it fails, half a sentence.
        say: told of everything worth a line.
    """

    name: str
    folder: Path
    identity: Mapping[str, str]
    classes: tuple[str, ...]
    remedy: str
    say: Callable[[str], None]

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"


@dataclass(kw_only=True)
class Run:
    """One training run in this process.

    Attributes:
        task: what is trained.
        probe: how it is looked at.
        steps: of the whole run.
        place: whose it is and where it writes.
        pace: what comes by the clock.
        done: steps taken, those before a resume included.
        history: what was seen.
    """

    task: Task
    probe: Probe
    steps: int
    place: Place
    pace: Pace = field(default_factory=Pace)
    done: int = 0
    history: History = field(default_factory=History)

    def start(self, *, resume: bool) -> None:
        """Begin, or take up the newest checkpoint.

        Raises:
            CheckpointError: there is a checkpoint and resume is False, or it is damaged or of another run.
        """
        folder, place = self.place.checkpoints, self.place
        if not resume:
            if has_checkpoint(folder):
                raise CheckpointError(
                    f"{place.folder} has the checkpoint of a training run; go on with it by --resume, train in another "
                    f"folder by --run, or delete {place.folder} to start anew"
                )
            return
        checkpoint = load_checkpoint(folder, place.say)
        if checkpoint is None:
            place.say(f"no checkpoint in {place.folder}; starting from the beginning")
            return
        check_identity(place.folder, checkpoint.identity, place.identity)
        try:
            self.task.load_state(checkpoint.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint in {place.folder} does not fit this version of {place.name}; delete {place.folder} to "
                "start anew"
            ) from error
        self.done, self.history = checkpoint.step, checkpoint.history
        place.say(f"going on from step {self.done} of {self.steps}")

    def finish(self) -> None:
        """Take all steps that are left.

        Raises:
            TrainingFailed: it diverged or collapsed.
            Paused: it was interrupted, or its time is up; all it needs to go on is put away.
            CheckpointError: a checkpoint could not be written.
        """
        with noticing_interruption() as interruption, self._bar() as bar:
            clock = Clock(self.pace)
            while self.done < self.steps:
                self._step(bar)
                self._keep_up(clock, bar)
                self._pause_if_asked(clock, interruption)
            self._save()
            self._draw()
            self._pause_if_asked(clock, interruption)  # what comes after training may take minutes

    def _bar(self) -> tqdm[Any]:
        return tqdm(total=self.steps, initial=self.done, unit="step", desc=self.place.name, disable=None)

    def _step(self, bar: tqdm[Any]) -> None:
        """Take one step, and look when it is time to."""
        losses = {name: float(loss) for name, loss in self.task.step(self.done).items()}
        self.done += 1
        if reason := find_divergence(losses):
            self._fail("diverged", reason)
        if self.done % _SHOWN_EVERY == 0:  # losses show it first, most of the time
            self._check_weights()
        self.history.add_losses(self.done, losses)
        if self.done % max(1, self.steps // LOOKS) == 0 or self.done == self.steps:
            self.history.looks.append(self.probe.look(self.task.averaged(), self.done))
            if reason := find_collapse(self.history.looks, classes=self.place.classes, steps=self.steps):
                self._fail("collapsed", reason)
        bar.update()
        if self.done % _SHOWN_EVERY == 0:
            bar.set_postfix_str(self._describe(losses), refresh=False)

    def _check_weights(self) -> None:
        for name, value in self.task.averaged().state_dict().items():
            if not bool(torch.isfinite(value).all()):
                self._fail("diverged", f"the weight {name} is not finite")

    def _keep_up(self, clock: Clock, bar: tqdm[Any]) -> None:
        """Do what is due by the clock."""
        if clock.is_due("checkpoint", self.pace.checkpoint_seconds) and is_healthy(
            self.history.looks, steps=self.steps
        ):
            self._save()
        if clock.is_due("picture", self.pace.picture_seconds):
            self._draw()
        if bar.disable and clock.is_due("line", self.pace.line_seconds):
            self.place.say(f"step {self.done} of {self.steps} ({100 * self.done // self.steps} %): {self._describe()}")

    def _pause_if_asked(self, clock: Clock, interruption: Interruption) -> None:
        if interruption.signal is not None:
            reason, code = f"by {interruption.signal.name}", 128 + interruption.signal
        elif self.done < self.steps and clock.seconds() >= (self.pace.max_seconds or math.inf):
            reason, code = f"after {self.pace.max_seconds:g} s", _OUT_OF_TIME
        else:
            return
        self._save()
        self._draw()
        message = (
            f"stopped {reason} at step {self.done} of {self.steps}; {self.place.folder} has all of it. "
            "Go on by the same command with --resume."
        )
        raise Paused(message, code)

    def _save(self) -> None:
        self._check_weights()
        save_checkpoint(
            self.place.checkpoints,
            Checkpoint(
                step=self.done,
                identity=self.place.identity,
                history=self.history,
                healthy=is_healthy(self.history.looks, steps=self.steps),
                state=self.task.state(),
            ),
        )

    def _draw(self) -> Path | None:
        """Write both pictures; where they cannot be written, training goes on without."""
        file = self.place.folder / "pictures" / f"step-{self.done:09d}.png"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_picture(file, self.probe.draw(self.task.averaged()))
            write_picture(self.place.folder / "curves.png", draw_curves(self.history, self.place.name))
        except OSError as error:
            self.place.say(f"{file} cannot be written ({error})")
            return None
        return file

    def _fail(self, what: str, reason: str) -> NoReturn:
        picture, healthy = self._draw(), newest_healthy(self.place.checkpoints)
        raise TrainingFailed(
            f"training {what} at step {self.done} of {self.steps}: {reason}.\n"
            f"  picture: {picture or 'none'}, and curves.png beside its folder\n"
            f"  last healthy checkpoint: {healthy or 'none yet'}\n"
            f"  what to change: {self.place.remedy}; then delete {self.place.folder} and train again"
        )

    def _describe(self, losses: Mapping[str, float] | None = None) -> str:
        """Name losses, and what the last look saw."""
        losses = losses or (self.history.losses[-1][1] if self.history.losses else {})
        seen = {f"{name} loss" if name != "loss" else name: f"{loss:.3f}" for name, loss in losses.items()}
        if self.history.looks:
            seen |= _describe_look(self.history.looks[-1])
        return ", ".join(f"{name} {value}" for name, value in seen.items())


def _describe_look(look: Look) -> dict[str, str]:
    accuracy = {"label accuracy": f"{sum(look.accuracies) / len(look.accuracies):.3f}"} if look.accuracies else {}
    return accuracy | ({"distance ratio": f"{look.ratio:.3f}"} if look.ratio is not None else {})
