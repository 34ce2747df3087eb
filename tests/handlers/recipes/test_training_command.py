"""The command `fount train`: its output, its files, its errors, and resuming after kill -9."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from torch import Tensor

from handlers.cards.card import load_card
from handlers.cli.train import train
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.tasks.gans import GanTask
from tests.handlers.training_toys import MODEL_STORE

SHORT = ("digits-cgan", "--steps", "25", "--model-store", str(MODEL_STORE))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the measurement, which trains classifiers for minutes."""
    monkeypatch.setattr("handlers.recipes.run.training.measure", lambda *_args, **_options: ())


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


def kill_in_the_middle(run_folder: Path, out: Path) -> int:
    """Start the real command, kill it after its fifth step or a few more, and return the step of its checkpoint."""
    code = "from handlers.cli.train import train; train()"
    arguments = [sys.executable, "-c", code, *SHORT, "--checkpoint-seconds", "0", "--run", run_folder, "--out", out]
    with subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 60
        while not sorted(run_folder.glob("checkpoints/step-00000000[5-9].json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    return max(int(file.stem.removeprefix("step-")) for file in run_folder.glob("checkpoints/step-*.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    reached = kill_in_the_middle(tmp_path / "run", tmp_path / "killed")
    assert 5 <= reached < 25
    resumed = run(*SHORT, "--run", tmp_path / "run", "--out", tmp_path / "killed", "--resume")
    assert f"continuing from step {reached} of 25" in resumed.output
    whole = run(*SHORT, "--run", tmp_path / "other", "--out", tmp_path / "whole")
    assert (resumed.exit_code, whole.exit_code) == (0, 0)
    one, other = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == other


@pytest.mark.usefixtures("unmeasured")
def test_a_gan_is_written_with_its_range_and_steps(tmp_path: Path) -> None:
    result = run(*SHORT, "--steps", "2", "--seed", "4", "--run", tmp_path / "run", "--out", tmp_path / "model")
    card = load_card(tmp_path / "model")
    assert result.exit_code == 0
    assert card.recipe is not None
    assert (card.recipe.steps, card.recipe.seed, card.sample.value_range) == (2, 4, (-1.0, 1.0))


def test_the_command_trains_measures_and_names_the_next_command(tmp_path: Path) -> None:
    folder = tmp_path / "digits-classifier"
    result = run("digits-classifier", "--out", folder, "--run", tmp_path / "run", "--steps", "3", "--seed", "4")
    assert result.exit_code == 0
    assert f"{folder}: trained\n  test-accuracy 0." in result.output
    assert "(missed: ≥ 0.98 is required)" in result.output
    assert result.output.endswith("\n1 of 1 thresholds missed: test-accuracy\n")
    assert f"curves and pictures: {tmp_path / 'run'}" in result.output
    assert f"next: fount pack digits-classifier --model-store {tmp_path}" in result.output
    assert sorted(file.name for file in folder.iterdir()) == [
        "golden.safetensors",
        "model.yaml",
        "weights.safetensors",
    ]


@pytest.mark.usefixtures("unmeasured")
def test_the_first_lines_announce_the_progress_messages(tmp_path: Path) -> None:
    result = run(*SHORT, "--steps", "2", "--run", tmp_path / "run", "--out", tmp_path / "model")
    assert result.stderr.splitlines()[:2] == [
        f"training digits-cgan, 2 steps on cpu, in {tmp_path / 'run'}; the first picture follows after "
        "20 s, and without a terminal a line every 60 s",
        "digits-cgan is trained; measuring it, which takes minutes",
    ]


@pytest.mark.slow
def test_another_number_of_threads_is_another_run(tmp_path: Path) -> None:
    arguments = ("digits-classifier", "--out", tmp_path / "model", "--run", tmp_path / "run", "--steps", "2")
    assert run(*arguments).exit_code == 0
    result = run(*arguments, "--resume", "--threads", "2")
    assert (result.exit_code, "threads: 1 there, 2 here" in result.output) == (1, True)


def test_a_training_whose_time_is_up_ends_with_75(tmp_path: Path) -> None:
    result = run(*SHORT, "--run", tmp_path, "--out", tmp_path / "model", "--max-seconds", "0.001")
    assert result.exit_code == 75
    assert "stopped after 0.001 s at step 1 of 25" in result.output
    assert not (tmp_path / "model").exists()


def test_an_interrupted_training_ends_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_step = GanTask.step

    def interrupted(self: GanTask, number: int) -> Mapping[str, Tensor]:
        signal.raise_signal(signal.SIGINT)
        return take_step(self, number)

    monkeypatch.setattr(GanTask, "step", interrupted)
    result = run(*SHORT, "--run", tmp_path, "--out", tmp_path / "model")
    assert (result.exit_code, "Continue with the same command and --resume." in result.output) == (130, True)


def test_an_interrupted_measurement_can_be_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("handlers.recipes.run.training.measure", interrupted)
    result = run(*SHORT, "--steps", "1", "--run", tmp_path, "--out", tmp_path / "model")
    assert result.exit_code == 130
    assert f"the last checkpoint is in {tmp_path}. Continue with the same command and --resume." in result.output


def test_a_training_that_diverges_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.recipes.run.divergence.MAX_LOSS", 1e-9)
    result = run(*SHORT, "--run", tmp_path, "--out", tmp_path / "model")
    assert (result.exit_code, "Error: training diverged at step 1 of 25" in result.output) == (1, True)


def test_an_unknown_recipe_is_reported_with_the_known_ones() -> None:
    result = run("digits-gan")
    assert result.exit_code == 2
    assert f"'digits-gan' is unknown; known recipes: {', '.join(RECIPES)}" in result.output


def test_a_missing_evaluator_is_reported_with_its_training_command(tmp_path: Path) -> None:
    result = run("digits-vae", "--model-store", tmp_path, "--run", tmp_path / "run")
    assert result.exit_code == 1
    assert f"{tmp_path} has no digits-classifier, which training needs; name the folder that has it" in result.output
    assert f"or train it: fount train digits-classifier --model-store {tmp_path}" in result.output


def test_a_damaged_evaluator_must_be_trained_again(tmp_path: Path) -> None:
    (tmp_path / "digits-classifier").mkdir()
    result = run("digits-vae", "--model-store", tmp_path, "--run", tmp_path / "run")
    assert result.exit_code == 1
    assert "Train the classifier first: fount train digits-classifier" in result.output


def test_an_evaluator_of_other_data_is_refused_before_training(tmp_path: Path) -> None:
    shutil.copytree(MODEL_STORE / "mnist-classifier", tmp_path / "digits-classifier")
    result = run("digits-cgan", "--model-store", tmp_path, "--run", tmp_path / "run")
    assert (result.exit_code, (tmp_path / "run").exists()) == (1, False)
    assert "reads 28×28×1 pixels and 10 classes, digits has 8×8×1" in result.output


def test_missing_data_are_reported_with_their_files(tmp_path: Path) -> None:
    result = run("mnist-classifier", "--data", tmp_path, "--run", tmp_path / "run")
    assert result.exit_code == 1
    assert "train-images-idx3-ubyte" in result.output
    assert "--data" in result.output


def test_a_missing_device_is_named(tmp_path: Path) -> None:
    result = run("digits-vae", "--out", tmp_path, "--device", "nowhere")
    assert (result.exit_code, "'nowhere' is not available" in result.output) == (2, True)


def test_a_model_that_cannot_be_written_can_be_written_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run(
        "digits-classifier", "--steps", "2", "--run", tmp_path / "run", "--out", tmp_path / "file" / "digits-classifier"
    )
    assert result.exit_code == 1
    assert "the same command with --resume and another --out writes it from" in result.output
