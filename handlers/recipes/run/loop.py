"""The loop of a training run: takes a task's steps, measures and draws on the way, and writes checkpoints.

A task and a run folder enter; the trained task leaves, or an exception with the last step and what to do. Snapshots are
taken and runs are stopped by step number, so that they are the same every time; checkpoints, pictures and progress
lines depend on the clock, and none of them touches the task's random numbers. So weights depend on neither.

A run's folder contains `checkpoints/`, `pictures/step-….png` and `curves.png`.
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
from PIL import Image
from tqdm import tqdm

from fount.files import atomic_path
from handlers.recipes.catalogue import AutoregressiveFit, DiffusionFit, GanFit, ImageDiffusionFit, Recipe
from handlers.recipes.run.checkpoints import (
    Checkpoint,
    CheckpointError,
    check_identity,
    has_checkpoint,
    load_checkpoint,
    newest_healthy,
    save_checkpoint,
)
from handlers.recipes.run.divergence import find_collapse, find_divergence, is_healthy
from handlers.recipes.run.history import History, draw_curves
from handlers.recipes.run.probes import Probe
from handlers.recipes.tasks.task import Task

__all__ = ["Run", "TrainingFailed", "TrainingInterrupted", "TrainingOptions"]

_SNAPSHOTS = 40  # in a run whose fit names no other number
_CHECK_STEPS = 20  # steps between two checks of the weights and updates of the progress bar
_EXIT_OUT_OF_TIME = 75  # EX_TEMPFAIL of sysexits.h: try again later
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingFailed(Exception):
    """Training diverged or collapsed. The message names a picture, the last healthy checkpoint, and what to change."""


class TrainingInterrupted(Exception):
    """Training was stopped before its end and has written a checkpoint. The message says how to continue.

    Attributes:
        exit_code: of the command that trains.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of one training.

    Attributes:
        steps: optimiser steps.
        seed: of everything random.
        run_folder: for checkpoints and pictures.
        resume: continue from its newest checkpoint.
        device: where to train.
        threads: torch's.
        max_seconds: stop after this time; None is never.
        checkpoint_seconds: between two checkpoints.
        picture_seconds: between two pictures.
        first_picture_seconds: before the first picture.
        line_seconds: between two progress lines where there is no progress bar.
    """

    steps: int
    seed: int
    run_folder: Path
    resume: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1
    max_seconds: float | None = None
    checkpoint_seconds: float = 60.0
    picture_seconds: float = 180.0
    first_picture_seconds: float = 20.0
    line_seconds: float = 60.0


@dataclass(kw_only=True)
class Run:
    """One training run in this process.

    Attributes:
        recipe: names the model and its classes.
        task: what is trained.
        probe: measures and draws it.
        options: length, folder, and times of checkpoints, pictures and lines.
        identity: everything the weights depend on, by name.
        log: called with every progress message.
        done: steps taken, including those before a resume.
        history: of all these steps.
    """

    recipe: Recipe
    task: Task
    probe: Probe
    options: TrainingOptions
    identity: Mapping[str, str]
    log: Callable[[str], None]
    done: int = 0
    history: History = field(default_factory=History)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.options.run_folder / "checkpoints"

    @property
    def _snapshots(self) -> int:
        fit = self.recipe.fit
        return fit.snapshots if isinstance(fit, AutoregressiveFit | DiffusionFit | ImageDiffusionFit) else _SNAPSHOTS

    def start(self) -> None:
        """Start at step 0, or load the newest checkpoint.

        Raises:
            CheckpointError: there is a checkpoint and it is not to be resumed, or it is damaged or of another run.
        """
        folder = self.options.run_folder
        if not self.options.resume:
            if has_checkpoint(self.checkpoints):
                raise CheckpointError(
                    f"{folder} has the checkpoint of a training run; continue it with --resume, train in another "
                    f"folder with --run, or delete {folder} to start again"
                )
            return
        checkpoint = load_checkpoint(self.checkpoints, self.log)
        if checkpoint is None:
            self.log(f"no checkpoint in {folder}; starting at step 0")
            return
        check_identity(folder, checkpoint.identity, self.identity)
        try:
            self.task.load_state(checkpoint.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint in {folder} does not fit this version of {self.recipe.name}; delete {folder} to start "
                "again"
            ) from error
        self.done, self.history = checkpoint.step, checkpoint.history
        self.log(f"continuing from step {self.done} of {self.options.steps}")

    def finish(self) -> None:
        """Take all remaining steps.

        Raises:
            TrainingFailed: training diverged or collapsed.
            TrainingInterrupted: a signal arrived or the time is up; a checkpoint has been written.
            CheckpointError: a checkpoint could not be written.
        """
        steps = self.options.steps
        bar = tqdm(total=steps, initial=self.done, unit="step", desc=self.recipe.name, disable=None)
        with _catch_signal() as caught, bar:
            timer = _Timer(self.options)
            while self.done < steps:
                self._step(bar)
                self._do_scheduled(timer, bar)
                self._stop_if_due(timer, caught)
            self._save()
            self._draw()
            self._stop_if_due(timer, caught)  # measuring after training may take minutes

    def _step(self, bar: tqdm[Any]) -> None:
        """Take one step, and a snapshot when one is due."""
        losses = {name: float(loss) for name, loss in self.task.step(self.done).items()}
        self.done += 1
        if reason := find_divergence(losses):
            self._fail("diverged", reason)
        if self.done % _CHECK_STEPS == 0:  # losses usually show it first
            self._check_weights()
        self.history.add_losses(self.done, losses)
        if self.done % max(1, self.options.steps // self._snapshots) == 0 or self.done == self.options.steps:
            self.history.snapshots.append(self.probe.measure(self.task.averaged(), self.done))
            if reason := find_collapse(self.history.snapshots, classes=self.recipe.classes, steps=self.options.steps):
                self._fail("collapsed", reason)
        bar.update()
        if self.done % _CHECK_STEPS == 0:
            bar.set_postfix_str(self._describe(losses), refresh=False)

    def _do_scheduled(self, timer: _Timer, bar: tqdm[Any]) -> None:
        """Write the checkpoint, picture and progress line that are due."""
        steps, history = self.options.steps, self.history
        if timer.is_due("checkpoint", self.options.checkpoint_seconds) and is_healthy(history.snapshots, steps):
            self._save()
        if timer.is_due("picture", self.options.picture_seconds):
            self._draw()
        if bar.disable and timer.is_due("line", self.options.line_seconds):
            losses = history.losses[-1][1] if history.losses else {}
            percent = 100 * self.done // steps
            self.log(f"step {self.done} of {steps} ({percent} %): {self._describe(losses)}")

    def _stop_if_due(self, timer: _Timer, caught: list[signal.Signals]) -> None:
        if caught:
            reason, code = f"by {caught[0].name}", 128 + caught[0]
        elif self.done < self.options.steps and timer.seconds() >= (self.options.max_seconds or math.inf):
            reason, code = f"after {self.options.max_seconds:g} s", _EXIT_OUT_OF_TIME
        else:
            return
        self._save()
        self._draw()
        message = (
            f"stopped {reason} at step {self.done} of {self.options.steps}; its state is saved in "
            f"{self.options.run_folder}. Continue with the same command and --resume."
        )
        raise TrainingInterrupted(message, code)

    def _check_weights(self) -> None:
        for name, value in self.task.averaged().state_dict().items():
            if not bool(torch.isfinite(value).all()):
                self._fail("diverged", f"the weight {name} is not finite")

    def _save(self) -> None:
        self._check_weights()
        checkpoint = Checkpoint(
            step=self.done,
            identity=self.identity,
            history=self.history,
            healthy=is_healthy(self.history.snapshots, self.options.steps),
            state=self.task.state(),
        )
        save_checkpoint(self.checkpoints, checkpoint)

    def _draw(self) -> Path | None:
        """Write both pictures; training continues when they cannot be written.

        Returns:
            The picture of samples; None when it could not be written.
        """
        file = self.options.run_folder / "pictures" / f"step-{self.done:09d}.png"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_png(file, self.probe.draw(self.task.averaged()))
            _write_png(self.options.run_folder / "curves.png", draw_curves(self.history, self.recipe.name))
        except OSError as error:
            self.log(f"{file} cannot be written ({error})")
            return None
        return file

    def _fail(self, failure: str, reason: str) -> NoReturn:
        picture, healthy = self._draw(), newest_healthy(self.checkpoints)
        raise TrainingFailed(
            f"training {failure} at step {self.done} of {self.options.steps}: {reason}.\n"
            f"  picture: {picture or 'none'}, and {self.options.run_folder}/curves.png\n"
            f"  last healthy checkpoint: {healthy or 'none yet'}\n"
            f"  what to change: {_remedy_for(self.recipe)}; then delete {self.options.run_folder} and train again"
        )

    def _describe(self, losses: Mapping[str, float]) -> str:
        values = {f"{name} loss" if name != "loss" else name: loss for name, loss in losses.items()}
        if self.history.snapshots:
            snapshot = self.history.snapshots[-1]
            if snapshot.accuracies:
                values["label accuracy"] = sum(snapshot.accuracies) / len(snapshot.accuracies)
            if snapshot.ratio is not None:
                values["distance ratio"] = snapshot.ratio
            if snapshot.bits is not None:
                values["test bits per dimension"] = snapshot.bits
        return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


@contextmanager
def _catch_signal() -> Iterator[list[signal.Signals]]:
    """Record the first SIGINT or SIGTERM in a list instead of ending the process; the second ends it.

    Python handles signals in the main thread alone; in other threads none is recorded.
    """
    caught: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def record(number: int, _frame: FrameType | None) -> None:
        caught.append(signal.Signals(number))
        restore()

    for number in _SIGNALS:
        signal.signal(number, record)
    try:
        yield caught
    finally:
        restore()


class _Timer:
    """Determines when recurring work is due, counted from the creation of the timer."""

    def __init__(self, options: TrainingOptions) -> None:
        self._start = time.monotonic()
        self._last = {"picture": self._start + options.first_picture_seconds - options.picture_seconds}

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def is_due(self, work: str, every_s: float) -> bool:
        """Whether some work is due; if so, its interval starts again."""
        now = time.monotonic()
        if now - self._last.get(work, self._start) < every_s:
            return False
        self._last[work] = now
        return True


def _write_png(file: Path, image: Image.Image) -> None:
    with atomic_path(file) as part:
        image.save(part, format="PNG")


def _remedy_for(recipe: Recipe) -> str:
    if isinstance(recipe.fit, GanFit):
        return (
            "lower generator_rate and discriminator_rate in the recipe's fit (handlers/recipes/catalogue/); if the "
            "discriminator's loss has fallen near 0 it has memorised the pictures, so raise augment_shift or lower "
            "discriminator_features; or try another --seed"
        )
    return "lower the rate in the recipe's fit (handlers/recipes/catalogue/), or try another --seed"
