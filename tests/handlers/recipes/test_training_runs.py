"""Training runs: whatever stops one, what it has done is not lost, and what is lost is said."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from handlers.recipes.run import run
from handlers.recipes.run.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from handlers.recipes.run.run import Paused, TrainingFailed
from handlers.recipes.tasks.gans import GanTask
from tests.handlers.training_toys import DIGITS, are_equal, forget_z, order, refit, small, train


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals = signal.SIGINT) -> None:
    """Have a signal come during a step of the GAN, once."""
    take_step, left = GanTask.step, [number]

    def interrupted(self: GanTask, at: int) -> Mapping[str, Tensor]:
        if at == step and left:
            signal.raise_signal(left.pop())
        return take_step(self, at)

    monkeypatch.setattr(GanTask, "step", interrupted)


def pictures_of(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "pictures").iterdir())


# --- Stopped and taken up ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_a_run_stopped_by_the_clock_goes_on_to_the_same_weights(name: str, tmp_path: Path) -> None:
    whole, _ = train(small(name), order(tmp_path / "whole"))
    with pytest.raises(Paused, match=r"stopped after 1e-09 s at step 1 of 12; .* by the same command with --resume"):
        train(small(name), order(tmp_path / "cut", max_seconds=1e-9))
    resumed, lines = train(small(name), order(tmp_path / "cut", resume=True))
    assert lines[0] == "going on from step 1 of 12"
    assert are_equal(resumed, whole)


def test_time_that_is_up_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(Paused) as pause:
        train(small("digits-cgan"), order(tmp_path, max_seconds=1e-9))
    assert pause.value.exit_code == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_is_interrupted_goes_on_to_the_same_weights(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(small("digits-cgan"), order(tmp_path / "whole"))
    interrupt_at(monkeypatch, 4, number)
    with pytest.raises(Paused, match=f"stopped by {number.name} at step 5 of 12") as pause:
        train(small("digits-cgan"), order(tmp_path / "cut"))
    assert pause.value.exit_code == code
    assert are_equal(train(small("digits-cgan"), order(tmp_path / "cut", resume=True))[0], whole)


def test_a_run_interrupted_in_its_last_step_ends_whole_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 11)
    with pytest.raises(Paused, match="stopped by SIGINT at step 12 of 12"):
        train(small("digits-cgan"), order(tmp_path))
    assert train(small("digits-cgan"), order(tmp_path, resume=True))[1] == ["going on from step 12 of 12"]


def test_a_run_interrupted_while_its_last_checkpoint_is_written_still_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_interrupted(folder: Path, checkpoint: Checkpoint) -> None:
        monkeypatch.setattr(run, "save_checkpoint", save_checkpoint)
        signal.raise_signal(signal.SIGINT)
        save_checkpoint(folder, checkpoint)

    monkeypatch.setattr(run, "save_checkpoint", save_interrupted)
    with pytest.raises(Paused, match="stopped by SIGINT at step 2 of 2"):
        train(small("digits-cgan"), order(tmp_path, steps=2))


def test_signals_are_left_as_they_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(small("digits-cgan"), order(tmp_path, steps=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
def test_pictures_and_checkpoints_after_every_step_change_no_weight(tmp_path: Path) -> None:
    plain, _ = train(small("digits-cgan"), order(tmp_path / "plain", steps=5))
    pace = {"picture_seconds": 0.0, "first_picture_seconds": 0.0, "checkpoint_seconds": 0.0, "line_seconds": 0.0}
    watched, lines = train(small("digits-cgan"), order(tmp_path / "watched", steps=5, **pace))
    assert are_equal(plain, watched)
    assert pictures_of(tmp_path / "watched") == [f"step-00000000{step}.png" for step in range(1, 6)]
    assert lines[1].startswith("step 1 of 5 (20 %): generator loss ")
    assert "label accuracy 0." in lines[1]
    assert "distance ratio 0." in lines[1]


def test_a_run_draws_its_samples_and_its_curves(tmp_path: Path) -> None:
    train(small("digits-cgan"), order(tmp_path, steps=2))
    with Image.open(tmp_path / "pictures" / "step-000000002.png") as samples, Image.open(tmp_path / "curves.png") as c:
        assert samples.size == (808, 988)  # ten rows of ten
        assert c.size == (800, 600)


def test_curves_go_on_after_a_resume(tmp_path: Path) -> None:
    with pytest.raises(Paused):
        train(small("digits-cgan"), order(tmp_path, max_seconds=1e-9))
    train(small("digits-cgan"), order(tmp_path, resume=True))
    found = load_checkpoint(tmp_path / "checkpoints", print)
    assert found is not None
    assert [step for step, _ in found.history.losses] == list(range(1, 13))
    assert [look.step for look in found.history.looks] == list(range(1, 13))


def test_a_run_that_is_done_is_not_trained_again(tmp_path: Path) -> None:
    whole, _ = train(small("digits-cgan"), order(tmp_path))
    again, lines = train(small("digits-cgan"), order(tmp_path, resume=True))
    assert (lines, are_equal(again, whole)) == (["going on from step 12 of 12"], True)


# --- Refused ----------------------------------------------------------------------------------------------------------


def test_a_folder_with_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    train(small("digits-cgan"), order(tmp_path, steps=1))
    with pytest.raises(CheckpointError, match=rf"go on with it by --resume, .* or delete {tmp_path} to start anew"):
        train(small("digits-cgan"), order(tmp_path, steps=1))


def test_resuming_without_a_checkpoint_starts_from_the_beginning_and_says_so(tmp_path: Path) -> None:
    _, lines = train(small("digits-cgan"), order(tmp_path, steps=1, resume=True))
    assert lines[0] == f"no checkpoint in {tmp_path}; starting from the beginning"


def test_resuming_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    recipe = small("digits-cgan")
    train(recipe, order(tmp_path, steps=1))
    other = dataclasses.replace(recipe, config=recipe.config | {"features": 8})
    with pytest.raises(CheckpointError) as error:
        train(refit(other, augment_shift=2), order(tmp_path, steps=3, seed=6, resume=True))
    named = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:-1]]
    assert named == ["configuration", "fit", "steps", "seed"]


# --- Lost -------------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_stops_with_a_picture_and_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as error:
        train(refit(small("digits-cvae"), rate=1e9), order(tmp_path, steps=30))
    assert "training diverged at step " in str(error.value)
    assert "what to change: lower the rate in the recipe's fit" in str(error.value)
    assert str(tmp_path / "pictures" / pictures_of(tmp_path)[-1]) in str(error.value)
    assert (tmp_path / "curves.png").is_file()


class Forgetful(GanTask):
    """A GAN whose generator no longer reads z once it has learned a little."""

    def step(self, number: int) -> Mapping[str, Tensor]:
        losses = super().step(number)
        if number >= 24:
            forget_z(self.averaged())
        return losses


def test_a_run_that_collapses_stops_with_the_last_healthy_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.recipes.training.GanTask", Forgetful)
    monkeypatch.setattr("handlers.recipes.run.watch.WARM_UP_STEPS", 4)
    monkeypatch.setattr("handlers.recipes.run.watch.LEARNED_ACCURACY", 2.0)  # no class is lost: none counts as learned
    recipe = refit(small("digits-cgan"), generator_rate=2e-3, discriminator_rate=4e-3, averaging=0.5)
    with pytest.raises(TrainingFailed) as error:
        train(recipe, order(tmp_path, steps=80, checkpoint_seconds=0))
    assert "training collapsed at step 28 of 80: samples of a class come out alike" in str(error.value)
    assert f"last healthy checkpoint: {tmp_path}/checkpoints/step-000000025.safetensors" in str(error.value)
    assert "lower generator_rate and discriminator_rate" in str(error.value)
    assert pictures_of(tmp_path)[-1] == "step-000000028.png"


def test_a_weight_that_is_no_number_is_never_put_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_step = GanTask.step

    def spoil(self: GanTask, number: int) -> Mapping[str, Tensor]:
        losses = take_step(self, number)
        with torch.no_grad():
            self.averaged().get_submodule("input").bias[0] = torch.nan  # type: ignore[union-attr,index]
        return losses

    monkeypatch.setattr(GanTask, "step", spoil)
    with pytest.raises(TrainingFailed, match=r"diverged at step 1 of 2: the weight input.bias is not finite"):
        train(small("digits-cgan"), order(tmp_path, steps=2, checkpoint_seconds=0))
    assert list((tmp_path / "checkpoints").glob("*")) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("name", DIGITS)
def test_a_run_on_cuda_is_the_same_twice_and_after_a_resume(name: str, tmp_path: Path) -> None:
    device = torch.device("cuda")
    first, again, cut = (
        dataclasses.replace(order(tmp_path / part), device=device) for part in ("first", "again", "cut")
    )
    whole = train(small(name), first)[0]
    assert are_equal(whole, train(small(name), again)[0])
    with pytest.raises(Paused):
        train(small(name), dataclasses.replace(cut, pace=order(tmp_path, max_seconds=1e-9).pace))
    assert are_equal(whole, train(small(name), dataclasses.replace(cut, resume=True))[0])
