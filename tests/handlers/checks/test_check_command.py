"""`fount check` runs a model in a child process, survives whatever its code does, and reports it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from fount.cli.main import main
from handlers.cards import card as cards
from handlers.checks.registry import CHECKS, run_checks
from handlers.checks.report import Finding, failed, finding_to_text, verdict
from handlers.checks.subject import Subject
from handlers.settings import Settings
from tests.handlers.planted import plant

MODEL_STORE = Path(__file__).resolve().parents[3] / "model_store"
COLOUR = """\
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.ConvTranspose2d(8, 4, 8), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 4))
    def forward(self, z):
        return torch.tanh(9 * self.net(z))
"""


def check(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["check", f"{folder.parent}/{folder.name}", *options])


def mode_of(picture: Path) -> str:
    with Image.open(picture) as image:
        return image.mode


def states(result: Result) -> dict[str, str]:
    return {line[3:17].strip(): line[0] for line in result.stdout.splitlines() if line[:1] in "✓!✗–" and line[:1]}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = plant(tmp_path_factory.mktemp("store") / "planted", before="print('chatter', flush=True)")
    return folder, check(folder)


def test_a_good_model_passes_every_check_in_order(good: tuple[Path, Result]) -> None:
    assert good[1].exit_code == 0
    assert states(good[1]) == {check.name: "✓" for check in CHECKS}


def test_the_output_of_a_model_stays_out_of_the_report(good: tuple[Path, Result]) -> None:
    assert "chatter" not in good[1].output


def test_a_good_model_is_followed_by_the_next_command(good: tuple[Path, Result]) -> None:
    assert good[1].stdout.endswith(f"planted passed.\nNext: fount pack {good[0]}\n")


def test_a_good_model_leaves_its_picture_and_golden_samples(good: tuple[Path, Result]) -> None:
    assert mode_of(good[0] / "check.png") == "L"
    assert f"{good[0] / 'check.png'}: 3 of 3 classes, 8 z" in good[1].stdout
    assert (good[0] / "golden.safetensors").is_file()


def test_colour_pictures_without_classes_pass(tmp_path: Path) -> None:
    sample = cards.Sample(modality="image", height=32, width=32, channels=3, value_range=(-1.0, 1.0))
    card = {"sample": sample, "classes": (), "prior": (), "latent": cards.Latent(shape=(8, 1, 1))}
    result = check(plant(tmp_path / "colour", source=COLOUR, card=card), "--picture", str(tmp_path / "picture.png"))
    assert result.exit_code == 0, result.stdout
    assert mode_of(tmp_path / "picture.png") == "RGB"
    assert not (tmp_path / "colour" / "check.png").exists()


def test_a_shipped_model_passes_and_keeps_its_golden_samples(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_STORE / "digits-cvae", tmp_path / "digits-cvae")
    result = CliRunner().invoke(main, ["check", "digits-cvae", "--model-store", str(tmp_path)])
    assert result.exit_code == 0, result.stdout
    assert f"Next: fount pack digits-cvae --model-store {tmp_path}" in result.stdout
    golden = (MODEL_STORE / "digits-cvae" / "golden.safetensors").read_bytes()
    assert (folder / "golden.safetensors").read_bytes() == golden


def test_a_shipped_classifier_passes_every_check(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_STORE / "digits-classifier", tmp_path / "digits-classifier")
    subject = Subject(folder=folder, settings=Settings(), picture=tmp_path / "check.png")
    assert {finding.state for finding in run_checks(subject)} == {"passed"}


@pytest.mark.parametrize(
    ("line", "seen", "change"),
    [
        ("import os; os._exit(3)", "ended the process with exit status 3", "os._exit"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed (SIGKILL)", "limits.max_exec_batch"),
        ("import ctypes; ctypes.string_at(0)", "native code crashed (SIGSEGV), in sample (generator.py, line", "torch"),
    ],
    ids=["ends", "is killed", "crashes"],
)
def test_a_process_that_dies_is_the_finding_of_its_check(tmp_path: Path, line: str, seen: str, change: str) -> None:
    result = check(plant(tmp_path / "planted", before=line))
    assert result.exit_code == 1
    assert states(result)["output"] == "✗"
    assert states(result)["golden"] == "–"
    assert seen in result.stdout
    assert change in result.stdout


@pytest.mark.slow
def test_an_endless_loop_is_stopped_at_the_time_limit_and_its_line_named(tmp_path: Path) -> None:
    folder = plant(tmp_path / "planted", before="while True: pass")
    line = (folder / "generator.py").read_text().splitlines().index("        while True: pass") + 1
    start = time.monotonic()
    result = check(folder, "--time-limit", "2")
    assert time.monotonic() - start < 20
    assert f"not done after 2 s, in sample (generator.py, line {line})" in result.stdout
    assert "--time-limit" in result.stdout


def test_the_last_output_of_a_process_that_died_is_reported(tmp_path: Path) -> None:
    result = check(plant(tmp_path / "planted", before="import os; os.write(1, b'farewell'); os._exit(1)"))
    assert "it printed: farewell" in result.stdout


def test_json_is_one_document_with_every_finding(good: tuple[Path, Result]) -> None:
    document = json.loads(check(good[0], "--json", "--no-record", "--threads", "2").stdout)
    assert [finding["check"] for finding in document["findings"]] == [check.name for check in CHECKS]
    assert document["next"] == f"fount pack {good[0]}"
    assert "on 2 threads" in next(finding["seen"] for finding in document["findings"] if finding["check"] == "speed")


def test_a_failure_says_what_to_change_and_exits_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebook_code.py").write_text("")
    monkeypatch.chdir(tmp_path)  # a worker runs elsewhere, so what lies here must not be found
    result = check(plant(tmp_path / "planted", before="import notebook_code"))
    assert result.exit_code == 1
    assert "No module named 'notebook_code' (generator.py, line" in result.stdout
    assert "change: correct generator.py" in result.stdout
    assert result.stdout.endswith("planted failed output: change what is named above, then check again.\n")


def test_an_unknown_model_is_reported_with_the_known_ones(tmp_path: Path) -> None:
    plant(tmp_path / "planted")
    result = CliRunner().invoke(main, ["check", "plante", "--model-store", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path} has no model 'plante'; it has planted.\n")


def test_an_unknown_device_is_reported(good: tuple[Path, Result]) -> None:
    result = check(good[0], "--device", "nonsense")
    assert result.exit_code == 2
    assert "'nonsense' is not available" in result.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_a_good_model_passes_on_a_gpu(tmp_path: Path) -> None:
    folder = plant(tmp_path / "planted")
    result = check(folder, "--device", "cuda")
    assert result.exit_code == 0, result.stdout
    assert "on cuda" in result.stdout


def test_a_finding_survives_the_pipe() -> None:
    finding = failed("rows", "seen", "change", blocks=True, numbers={"apart": 1.5})
    assert Finding(**json.loads(json.dumps(dataclasses.asdict(finding)))) == finding


def test_a_class_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    card = {"classes": ("a", "b", "c", "猫"), "prior": (0.25,) * 4}  # one more than the module has
    folder = plant(tmp_path / "planted", card=card)
    result = CliRunner(charset="ascii").invoke(main, ["check", f"{folder.parent}/{folder.name}"])
    assert "label 3 ('\\u732b') raised IndexError" in result.stdout


def test_an_ascii_terminal_gets_ascii_marks() -> None:
    assert finding_to_text(failed("rows", "8×8", "correct it"), unicode=False).splitlines() == [
        "X  rows          8×8",
        "                 change: correct it",
    ]


def test_text_of_a_model_cannot_control_the_terminal() -> None:
    text = finding_to_text(failed("rows", "red\x1b[31m\nline\r", "correct\x07 it"))
    assert text.split("\n") == [
        "✗  rows          red [31m",
        "                 line ",
        "                 change: correct  it",
    ]


def test_every_failed_check_is_named_in_the_verdict() -> None:
    findings = [failed("rows", "", ""), failed("output", "", "")]
    assert verdict("toy", findings, "") == "toy failed rows, output: change what is named above, then check again."


@pytest.mark.parametrize(("options", "exit_code"), [((), 0), (("--worker-env", "DATABASE_URL"), 1)])
def test_the_model_gets_variables_that_are_named_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], exit_code: int
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@db/x")
    folder = plant(tmp_path / "planted", before="import os; assert 'DATABASE_URL' not in os.environ")
    assert check(folder, *options).exit_code == exit_code
