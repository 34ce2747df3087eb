"""Training runs: interruption and resuming, refused checkpoints, and detection of divergence and collapse."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from handlers.recipes.catalogue import GanFit
from handlers.recipes.run import loop
from handlers.recipes.run.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from handlers.recipes.run.loop import TrainingFailed, TrainingInterrupted
from handlers.recipes.tasks.gans import GanTask
from tests.handlers.training_toys import DIGITS, are_equal, ignore_z, options, refit, small, train


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals = signal.SIGINT) -> None:
    """Send a signal during one step of the GAN."""
    take_step, pending = GanTask.step, [number]

    def interrupted(self: GanTask, at: int) -> Mapping[str, Tensor]:
        if at == step and pending:
            signal.raise_signal(pending.pop())
        return take_step(self, at)

    monkeypatch.setattr(GanTask, "step", interrupted)


def pictures_of(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "pictures").iterdir())


# --- Interruption and resuming ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_a_run_stopped_by_the_clock_resumes_to_the_same_weights(name: str, tmp_path: Path) -> None:
    whole, _ = train(small(name), options(tmp_path / "whole"))
    with pytest.raises(
        TrainingInterrupted, match=r"stopped after 1e-09 s at step 1 of 12; .* same command and --resume"
    ):
        train(small(name), options(tmp_path / "resumed", max_seconds=1e-9))
    resumed, lines = train(small(name), options(tmp_path / "resumed", resume=True))
    assert lines[0] == "continuing from step 1 of 12"
    assert are_equal(resumed, whole)


def test_a_time_limit_has_its_own_exit_code(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted) as stopped:
        train(small("digits-cgan"), options(tmp_path, max_seconds=1e-9))
    assert stopped.value.exit_code == 75


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_weights(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(small("digits-cgan"), options(tmp_path / "whole"))
    interrupt_at(monkeypatch, 4, number)
    with pytest.raises(TrainingInterrupted, match=f"stopped by {number.name} at step 5 of 12") as stopped:
        train(small("digits-cgan"), options(tmp_path / "resumed"))
    assert stopped.value.exit_code == code
    assert are_equal(train(small("digits-cgan"), options(tmp_path / "resumed", resume=True))[0], whole)


def test_a_run_interrupted_in_its_last_step_ends_before_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 11)
    with pytest.raises(TrainingInterrupted, match="stopped by SIGINT at step 12 of 12"):
        train(small("digits-cgan"), options(tmp_path))
    assert train(small("digits-cgan"), options(tmp_path, resume=True))[1] == ["continuing from step 12 of 12"]


def test_a_run_interrupted_while_its_last_checkpoint_is_written_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_interrupted(folder: Path, checkpoint: Checkpoint) -> None:
        monkeypatch.setattr(loop, "save_checkpoint", save_checkpoint)
        signal.raise_signal(signal.SIGINT)
        save_checkpoint(folder, checkpoint)

    monkeypatch.setattr(loop, "save_checkpoint", save_interrupted)
    with pytest.raises(TrainingInterrupted, match="stopped by SIGINT at step 2 of 2"):
        train(small("digits-cgan"), options(tmp_path, steps=2))


def test_signal_handlers_are_restored(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(small("digits-cgan"), options(tmp_path, steps=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
def test_frequent_pictures_and_checkpoints_change_no_weight(tmp_path: Path) -> None:
    plain, _ = train(small("digits-cgan"), options(tmp_path / "plain", steps=5))
    schedule = {"picture_seconds": 0.0, "first_picture_seconds": 0.0, "checkpoint_seconds": 0.0, "line_seconds": 0.0}
    frequent, lines = train(small("digits-cgan"), options(tmp_path / "frequent", steps=5, **schedule))
    assert are_equal(plain, frequent)
    assert pictures_of(tmp_path / "frequent") == [f"step-00000000{step}.png" for step in range(1, 6)]
    assert lines[1].startswith("step 1 of 5 (20 %): generator loss ")
    assert "label accuracy 0." in lines[1]
    assert "distance ratio 0." in lines[1]


def test_a_run_draws_its_samples_and_its_curves(tmp_path: Path) -> None:
    train(small("digits-cgan"), options(tmp_path, steps=2))
    with Image.open(tmp_path / "pictures" / "step-000000002.png") as samples, Image.open(tmp_path / "curves.png") as c:
        assert samples.size == (808, 988)  # ten rows of ten
        assert c.size == (800, 600)


def test_curves_continue_after_a_resume(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        train(small("digits-cgan"), options(tmp_path, max_seconds=1e-9))
    train(small("digits-cgan"), options(tmp_path, resume=True))
    found = load_checkpoint(tmp_path / "checkpoints", print)
    assert found is not None
    assert [step for step, _ in found.history.losses] == list(range(1, 13))
    assert [snapshot.step for snapshot in found.history.snapshots] == list(range(1, 13))


def test_a_completed_run_is_not_trained_again(tmp_path: Path) -> None:
    whole, _ = train(small("digits-cgan"), options(tmp_path))
    again, lines = train(small("digits-cgan"), options(tmp_path, resume=True))
    assert (lines, are_equal(again, whole)) == (["continuing from step 12 of 12"], True)


# --- Refused checkpoints ----------------------------------------------------------------------------------------------


def test_a_folder_with_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    train(small("digits-cgan"), options(tmp_path, steps=1))
    with pytest.raises(CheckpointError, match=rf"continue it with --resume, .* or delete {tmp_path} to start again"):
        train(small("digits-cgan"), options(tmp_path, steps=1))


def test_resuming_without_a_checkpoint_starts_at_step_0(tmp_path: Path) -> None:
    _, lines = train(small("digits-cgan"), options(tmp_path, steps=1, resume=True))
    assert lines[0] == f"no checkpoint in {tmp_path}; starting at step 0"


def test_resuming_another_run_is_refused_with_the_differences(tmp_path: Path) -> None:
    recipe = small("digits-cgan")
    train(recipe, options(tmp_path, steps=1))
    other = dataclasses.replace(recipe, config=recipe.config | {"features": 8})
    with pytest.raises(CheckpointError) as error:
        train(refit(other, augment_shift=2), options(tmp_path, steps=3, seed=6, resume=True))
    named = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:-1]]
    assert named == ["configuration", "fit", "steps", "seed"]


# --- Divergence and collapse ------------------------------------------------------------------------------------------


def test_a_diverging_run_stops_with_a_picture_and_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as error:
        train(refit(small("digits-cvae"), rate=1e9), options(tmp_path, steps=30))
    assert "training diverged at step " in str(error.value)
    assert "what to change: lower the rate in the recipe's fit" in str(error.value)
    assert str(tmp_path / "pictures" / pictures_of(tmp_path)[-1]) in str(error.value)
    assert (tmp_path / "curves.png").is_file()


class Forgetful(GanTask):
    """A GAN whose generator ignores z from step 24 on."""

    def step(self, number: int) -> Mapping[str, Tensor]:
        losses = super().step(number)
        if number >= 24:
            ignore_z(self.averaged())
        return losses


def test_a_collapsing_run_stops_with_the_last_healthy_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.recipes.run.training._TASKS", {GanFit: Forgetful})
    monkeypatch.setattr("handlers.recipes.run.divergence.WARM_UP_STEPS", 4)
    monkeypatch.setattr(
        "handlers.recipes.run.divergence.LEARNED_ACCURACY", 2.0
    )  # no class is lost: none counts as learned
    recipe = refit(small("digits-cgan"), generator_rate=2e-3, discriminator_rate=4e-3, averaging=0.5)
    with pytest.raises(TrainingFailed) as error:
        train(recipe, options(tmp_path, steps=80, checkpoint_seconds=0))
    assert "training collapsed at step 28 of 80: samples of a class are alike" in str(error.value)
    assert f"last healthy checkpoint: {tmp_path}/checkpoints/step-000000025.safetensors" in str(error.value)
    assert "lower generator_rate and discriminator_rate" in str(error.value)
    assert pictures_of(tmp_path)[-1] == "step-000000028.png"


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_step = GanTask.step

    def spoil(self: GanTask, number: int) -> Mapping[str, Tensor]:
        losses = take_step(self, number)
        with torch.no_grad():
            self.averaged().get_submodule("input").bias[0] = torch.nan  # type: ignore[union-attr,index]
        return losses

    monkeypatch.setattr(GanTask, "step", spoil)
    with pytest.raises(TrainingFailed, match=r"diverged at step 1 of 2: the weight input.bias is not finite"):
        train(small("digits-cgan"), options(tmp_path, steps=2, checkpoint_seconds=0))
    assert list((tmp_path / "checkpoints").glob("*")) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("name", DIGITS)
def test_a_run_on_cuda_is_the_same_twice_and_after_a_resume(name: str, tmp_path: Path) -> None:
    device = torch.device("cuda")
    first, again, interrupted = (
        dataclasses.replace(options(tmp_path / part), device=device) for part in ("first", "again", "resumed")
    )
    whole = train(small(name), first)[0]
    assert are_equal(whole, train(small(name), again)[0])
    with pytest.raises(TrainingInterrupted):
        train(small(name), dataclasses.replace(interrupted, max_seconds=1e-9))
    assert are_equal(whole, train(small(name), dataclasses.replace(interrupted, resume=True))[0])
