"""The checks `notebook` and `golden`: a worker reproduces the notebook, and golden samples are recorded and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, tensor

from handlers.cards.card import load_card
from handlers.checks.subject import Subject
from handlers.loading.build import build_unwrapped
from handlers.models.custom import call_module
from handlers.settings import Settings
from tests.handlers.planted import find, plant

Tensors = dict[str, Tensor]


def save_example(folder: Path, change: Callable[[Tensors], object] = lambda tensors: None) -> None:
    """What an author's notebook would save."""
    module = build_unwrapped(load_card(folder), folder).eval()
    torch.manual_seed(5)
    z, labels = torch.randn(20, 4), torch.arange(20) % 3
    with torch.no_grad():
        tensors = {"z": z, "labels": labels, "images": call_module(module, z, labels)}
    change(tensors)
    save_file(tensors, folder / "example.safetensors")


def test_a_direct_call_of_the_module_gives_the_same_floats(tmp_path: Path) -> None:
    finding = find(plant(tmp_path), "notebook")
    assert finding.state == "passed"
    assert "the same floats" in finding.seen


def test_without_an_example_it_shows_how_to_save_one(tmp_path: Path) -> None:
    line = 'save_file({"z": z, "labels": labels, "images": images}, "example.safetensors")'
    assert line in find(plant(tmp_path), "notebook").change


def test_an_example_of_the_same_module_agrees(tmp_path: Path) -> None:
    save_example(plant(tmp_path))
    finding = find(tmp_path, "notebook")
    assert (finding.state, finding.numbers["example_levels"]) == ("passed", 0)
    assert "20 pictures of example.safetensors" in finding.seen


def test_an_example_slightly_beyond_the_range_is_compared(tmp_path: Path) -> None:
    folder = plant(tmp_path, result="torch.sigmoid(9 * x).reshape(-1, 1, 4, 4)")
    save_example(folder, lambda tensors: tensors["images"][tensors["images"] > 0.999].add_(0.004))
    assert find(tmp_path, "notebook").state == "passed"


def test_an_example_of_another_range_is_reported_with_its_exact_ends(tmp_path: Path) -> None:
    save_example(plant(tmp_path), lambda tensors: tensors["images"].mul_(2).view(-1)[:2].copy_(tensor([-0.25, 2.0625])))
    seen = find(tmp_path, "notebook").seen
    assert "pixels reach from -0.25 to 2.0625, the card's sample.value_range is [0.0, 1.0]: " in seen
    assert seen.endswith("save them as the module returns them, before other scaling")


def test_an_example_of_other_weights_names_likely_causes(tmp_path: Path) -> None:
    save_example(plant(tmp_path))
    weights = load_file(tmp_path / "weights.safetensors")
    save_file({name: 0.9 * value for name, value in weights.items()}, tmp_path / "weights.safetensors")
    finding = find(tmp_path, "notebook")
    assert finding.state == "failed"
    assert "levels apart" in finding.seen
    assert "training mode" in finding.change
    assert "EMA" in finding.change
    assert finding.change.endswith("if `rows` or `deterministic` below fail too, correct those first")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda t: t.pop("labels"), "contains images, z; it must contain images, labels, z"),
        (lambda t: t.update(images=t["images"].permute(0, 2, 3, 1).contiguous()), "must be floats (N, 1, 4, 4)"),
        (lambda t: t.update(images=2 * t["images"]), "the card's sample.value_range is [0.0, 1.0]"),
        (lambda t: t.update(z=t["z"][:5]), "z has 5 rows"),
        (lambda t: t.update(z=torch.tensor(1.0)), "cannot be read as safetensors"),
        (lambda t: t.update(z=torch.randn(20, 7)), "z has rows of shape (7,), the model takes (4,)"),
        (lambda t: t.update(labels=t["labels"] + 2), "labels reach from 2 to 4; the card has 3"),
        (lambda t: t.update(labels=t["labels"].float()), "they must be whole numbers (20,)"),
    ],
    ids=[
        "no labels", "channels last", "out of range", "too few z", "a number", "another latent", "unknown labels",
        "float labels",
    ],
)  # fmt: skip
def test_a_malformed_example_is_reported(tmp_path: Path, change: Callable[[Tensors], object], seen: str) -> None:
    save_example(plant(tmp_path), change)
    finding = find(tmp_path, "notebook")
    assert finding.state == "failed"
    assert seen in finding.seen
    assert "save_file" in finding.change


def test_an_example_that_is_no_safetensors_file_is_reported(tmp_path: Path) -> None:
    (plant(tmp_path) / "example.safetensors").write_bytes(b"nothing")
    assert "cannot be read as safetensors" in find(tmp_path, "notebook").seen


def test_golden_samples_are_recorded_and_then_kept(tmp_path: Path) -> None:
    first = find(plant(tmp_path), "golden")
    written = (tmp_path / "golden.safetensors").read_bytes()
    assert first.seen == "64 samples recorded in golden.safetensors"
    assert "kept" in find(tmp_path, "golden").seen
    assert (tmp_path / "golden.safetensors").read_bytes() == written


def test_golden_samples_of_other_weights_are_recorded_again(tmp_path: Path) -> None:
    find(plant(tmp_path), "golden")
    weights = load_file(tmp_path / "weights.safetensors")
    save_file({name: 0.9 * value for name, value in weights.items()}, tmp_path / "weights.safetensors")
    assert "recorded" in find(tmp_path, "golden").seen


def test_golden_samples_that_are_not_reproduced_fail(tmp_path: Path) -> None:
    find(plant(tmp_path), "golden")
    file = tmp_path / "golden.safetensors"
    with safe_open(file, framework="pt") as stream:
        metadata = stream.metadata()
    tensors = {name: 255 - value if name == "images" else value.clone() for name, value in load_file(file).items()}
    save_file(tensors, file, metadata)
    finding = find(tmp_path, "golden")
    assert finding.state == "failed"
    assert "delete golden.safetensors and check again" in finding.change


def test_no_golden_samples_are_recorded_when_recording_is_off(tmp_path: Path) -> None:
    assert find(plant(tmp_path), "golden", record=False).state == "passed"
    assert not (tmp_path / "golden.safetensors").exists()


def test_no_golden_samples_are_recorded_after_a_failure(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, card={"precisions": ("fp32", "bf16")}), "golden")
    assert (finding.state, finding.seen) == ("skipped", "not recorded while precisions fails")
    assert not (tmp_path / "golden.safetensors").exists()


def test_large_pictures_are_held_in_small_batches(tmp_path: Path) -> None:
    card = load_card(plant(tmp_path))
    sample = dataclasses.replace(card.sample, height=2048, width=2048, channels=3)
    subject = Subject(folder=tmp_path, settings=Settings(), picture=tmp_path / "check.png")
    subject.card = dataclasses.replace(card, sample=sample)
    assert subject.held_rows(64) == 1
