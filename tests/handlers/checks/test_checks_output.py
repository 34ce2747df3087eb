"""The checks `card`, `weights`, `output`, inputs, `batch-size`, `precisions` and `memory`, each with its remedy."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from fount.cli.main import main
from handlers.cards import card as cards
from handlers.cards.card import Parameter
from tests.handlers.planted import RESULT, SOURCE, custom_card, find, plant

WRONG_OUTPUT = {
    "channels last": ("torch.sigmoid(x).reshape(-1, 4, 4, 1)", "(7, 4, 4, 1) for 7 rows", "images.permute(0, 3, 1, 2)"),
    "no channel": ("torch.sigmoid(x).reshape(-1, 4, 4)", "shape (7, 4, 4)", "images.unsqueeze(1)"),
    "flat": ("torch.sigmoid(x)", "shape (7, 16)", "images.reshape(-1, 1, 4, 4)"),
    "another size": ("torch.sigmoid(x).reshape(-1, 1, 2, 8)", "(7, 1, 2, 8)", "height 2, width 8 in model.yaml"),
    "one picture": ("torch.sigmoid(x[:1]).reshape(-1, 1, 4, 4)", "(1, 1, 4, 4) for 7 rows", "one picture a row"),
    "integers": (f"(255 * {RESULT}).to(torch.uint8)", "returned uint8 instead of floats", "images.float() / 255"),
    "a tuple": (f"({RESULT}, None)", "returned a tuple, not a tensor", "a (B, C, H, W) tensor"),
    "beyond its range": ("9 * torch.tanh(x).reshape(-1, 1, 4, 4)", "value_range is [0.0, 1.0]", "torch.sigmoid"),
    "within -1 and 1": ("torch.tanh(x).reshape(-1, 1, 4, 4)", "reach from -", "value_range: [-1.0, 1.0]"),
    "up to 255": (f"255 * {RESULT}", "value_range is [0.0, 1.0]", "divide by 255"),
    "an exit": ("exit()", "raised SystemExit", "correct generator.py"),
    "an error": ("x.nonsense()", "AttributeError", "correct generator.py"),
}


@pytest.mark.parametrize(("result", "seen", "change"), WRONG_OUTPUT.values(), ids=WRONG_OUTPUT.keys())
def test_a_wrong_output_is_reported_with_its_remedy(tmp_path: Path, result: str, seen: str, change: str) -> None:
    finding = find(plant(tmp_path, result=result), "output")
    assert finding.state == "failed"
    assert seen in finding.seen
    assert change in finding.change


def test_an_error_of_the_model_names_its_line(tmp_path: Path) -> None:
    folder = plant(tmp_path, result="x.nonsense()")
    line = (folder / "generator.py").read_text().splitlines().index("        return x.nonsense()") + 1
    assert f"(generator.py, line {line})" in find(folder, "output").seen


def test_nan_under_one_label_is_found_and_names_it(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, after="x = torch.where(label[:, None] == 1, x / 0 * 0, x)"), "output")
    assert finding.state == "failed"
    assert "NaN or infinite values under label 'class 1'" in finding.seen


def test_a_label_that_the_module_does_not_know_is_named(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, card={"classes": ("a", "b", "c", "../x"), "prior": (0.25,) * 4}), "output")
    assert finding.seen.startswith(
        "label 0 ('a') works, label 3 ('../x') raised IndexError: index out of range in self"
    )
    assert finding.change.startswith("the card has 4 classes: make the module support as many")


def test_a_picture_that_cannot_be_written_is_warned_of(tmp_path: Path) -> None:
    (plant(tmp_path) / "check.png").mkdir()
    finding = find(tmp_path, "picture")
    assert finding.state == "warned"
    assert "name another file with --picture" in finding.change


def test_a_picture_replaces_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(plant(tmp_path) / "check.png")
    assert "it is a device or a pipe, and no file" in find(tmp_path, "picture").seen
    assert (tmp_path / "check.png").is_fifo()


def test_half_a_range_is_warned_of(tmp_path: Path) -> None:
    sample = dataclasses.replace(custom_card().sample, value_range=(-1.0, 1.0))
    finding = find(plant(tmp_path, card={"sample": sample}), "output")
    assert finding.state == "warned"
    assert "half of the card's value_range [-1.0, 1.0]" in finding.seen


def test_a_batch_of_fixed_size_is_reported(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, result="torch.sigmoid(x).reshape(1, 1, 4, 4)"), "output")
    assert "one row works, a batch of 7 raised RuntimeError" in finding.seen
    assert "x.shape[0] instead of a fixed number" in finding.change


def test_a_model_that_cannot_draw_one_row_is_reported(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, layer="nn.BatchNorm1d(16)", before="self.net[1].train()"), "output")
    assert "a batch works, one row alone raised ValueError" in finding.seen


def test_the_ends_of_a_parameter_are_drawn(tmp_path: Path) -> None:
    source = SOURCE.replace("sample(self, z, label)", "sample(self, z, label, temperature=1.0)")
    parameters = {"temperature": Parameter(min=0.5, max=3.0, default=1.0, description="Of the picture.")}
    folder = plant(tmp_path, source=source, result=f"temperature * {RESULT}", card={"parameters": parameters})
    finding = find(folder, "output")
    assert "at temperature 3 reach" in finding.seen
    assert "narrow parameters.temperature" in finding.change


def test_every_problem_of_a_card_is_reported(tmp_path: Path) -> None:
    folder = plant(tmp_path)
    text = (folder / "model.yaml").read_text().replace("max_exec_batch: 8", "max_exec_batch: 0").replace("1.0", "one")
    (folder / "model.yaml").write_text(text)
    finding = find(folder, "card")
    assert "problems" in finding.seen
    assert "limits.max_exec_batch: is 0; must be 1 or more" in finding.change


def test_a_version_that_is_no_number_is_named(tmp_path: Path) -> None:
    text = (plant(tmp_path) / "model.yaml").read_text()
    (tmp_path / "model.yaml").write_text(re.sub("version: .*", "version: true", text))
    assert find(tmp_path, "card").change == "version: is 'true'; must be digits and dots, like \"1.0\""


def test_a_latent_that_the_module_does_not_take_is_named(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, card={"latent": cards.Latent(shape=(5,))}), "output")
    assert "shapes cannot be multiplied" in finding.seen
    assert finding.change.startswith("latent.shape in model.yaml is [5]: if the module takes z of another shape")


def test_an_error_that_is_not_of_shapes_leaves_the_latent_out(tmp_path: Path) -> None:
    assert "latent" not in find(plant(tmp_path, result="x.nonsense()"), "output").change


def test_checks_whose_dependency_failed_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("name: nothing")
    assert find(tmp_path, "golden").state == "skipped"


@pytest.mark.parametrize(
    ("line", "seen", "change"),
    [
        ("import einops_missing", "imports einops_missing, which this worker lacks", "worker's environment"),
        ("class Generator: pass", "no torch.nn.Module", "derive Generator from torch.nn.Module"),
        ("raise ValueError('no luck')", "ValueError: no luck (generator.py, line", "generator.py cannot be imported"),
        ("raise SystemExit(0)", "SystemExit: 0", "__main__"),
    ],
    ids=["a missing package", "no module", "an error", "an exit"],
)
def test_an_unusable_source_file_is_reported(tmp_path: Path, line: str, seen: str, change: str) -> None:
    folder = plant(tmp_path)
    with (folder / "generator.py").open("a") as file:
        file.write(f"\n{line}\n")
    finding = find(folder, "weights")
    assert finding.state == "failed"
    assert seen in f"{finding.seen}; {finding.change}"
    assert change in f"{finding.seen}; {finding.change}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it needs a machine without CUDA")
def test_a_class_that_is_built_on_cuda_is_reported_with_its_line(tmp_path: Path) -> None:
    folder = plant(tmp_path)
    source = (folder / "generator.py").read_text().replace("torch.zeros(())", 'torch.zeros((), device="cuda")')
    (folder / "generator.py").write_text(source)
    finding = find(folder, "weights")
    line = next(i for i, text in enumerate(source.splitlines(), 1) if "cuda" in text)
    assert f"it creates tensors on cuda, which this machine does not have (generator.py, line {line})" in finding.seen
    assert finding.change.startswith("create tensors on the device of z")


def test_missing_and_extra_weights_are_named(tmp_path: Path) -> None:
    folder = plant(tmp_path)
    weights = load_file(folder / "weights.safetensors")
    weights["other"] = weights.pop("embed.weight")
    save_file(weights, folder / "weights.safetensors")
    seen = find(folder, "weights").seen
    assert "embed.weight" in seen
    assert "other" in seen


def test_pickled_weights_are_refused_with_the_command_that_converts_them(tmp_path: Path) -> None:
    folder = plant(tmp_path)
    weights = {name: value.clone() for name, value in load_file(folder / "weights.safetensors").items()}
    torch.save(weights, folder / "weights.safetensors")
    finding = find(folder, "weights")
    assert finding.state == "failed"
    command = re.search("run `fount (convert .*)`, and set weights.file to converted.safetensors", finding.change)
    assert command is not None
    assert CliRunner().invoke(main, command[1].split()).exit_code == 0


@pytest.mark.parametrize(
    ("check", "before", "seen"),
    [
        ("uses-z", "z = 0 * z", "16 z give one picture under label 'class 0': the largest difference is 0 levels"),
        ("uses-label", "label = 0 * label", "the same z gives the same result under all 3 labels"),
        ("uses-label", "label = label.clamp(max=1)", "under labels 'class 1' and 'class 2'"),
    ],
)
def test_an_input_that_changes_nothing_is_warned_of(tmp_path: Path, check: str, before: str, seen: str) -> None:
    finding = find(plant(tmp_path, before=before), check)
    assert finding.state == "warned"
    assert seen in finding.seen
    assert finding.change


def test_the_effect_of_inputs_is_reported_in_levels(tmp_path: Path) -> None:
    assert "levels" in find(plant(tmp_path), "uses-z").seen
    assert "no two alike" in find(plant(tmp_path), "uses-label").seen


def test_a_listed_bf16_that_is_too_far_off_fails(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, card={"precisions": ("fp32", "bf16")}), "precisions")
    assert finding.state == "failed"
    assert "bf16 is too far off" in finding.seen
    assert "remove bf16" in finding.change


def test_a_sufficient_bf16_is_suggested(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, after="x = (200.0 * (z[:, :1] > 0) - 100).expand(-1, 16)"), "precisions")
    assert finding.state == "passed"
    assert "precisions: [fp32, bf16]" in finding.change


def test_measuring_that_would_take_too_long_fails_before_it_starts(tmp_path: Path) -> None:
    folder = plant(tmp_path, after="time.sleep(0.02 * len(x))")
    finding = find(folder, "batch-size", time_limit_s=1.0)
    assert finding.state == "failed"
    assert "would take about" in finding.seen
    assert "set limits.max_exec_batch" in finding.change


def test_larger_batches_are_suggested_for_a_model_of_small_ones(tmp_path: Path) -> None:
    limits = cards.Limits(max_count=10, max_labels=10, max_exec_batch=8)
    finding = find(plant(tmp_path, card={"limits": limits}), "batch-size")
    assert finding.numbers["best_batch"] == 8
    assert "limits.max_exec_batch: 16 may be faster" in finding.change


def test_a_model_larger_than_memory_fails_before_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.loading.memory.available_bytes", lambda: 1000)
    monkeypatch.setattr(
        "handlers.cards.digests.file_digest", lambda file: pytest.fail("a digest of what is too large was taken")
    )
    finding = find(plant(tmp_path), "weights")
    assert finding.state == "failed"
    assert "of memory to load" in finding.seen
    assert "more memory" in finding.change


def test_a_worker_that_takes_half_the_memory_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.checks.loading.available_bytes", lambda: 2**20)
    finding = find(plant(tmp_path), "memory")
    assert finding.state == "warned"
    assert "serve it with one worker" in finding.change
