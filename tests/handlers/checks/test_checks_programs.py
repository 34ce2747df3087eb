"""Checks of TorchScript and exported programs, whose code cannot be named."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from handlers.cards import card as cards
from handlers.checks.report import Finding
from tests.handlers.planted import custom_card, find


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(3, 16)
        self.net = nn.Linear(4, 16)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.sigmoid(4 * self.net(z) + self.embed(label)).reshape(-1, 1, 4, 4)


class Mixing(Plain):
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.sigmoid(4 * self.net(z - z.mean(0)) + self.embed(label)).reshape(-1, 1, 4, 4)


class Random(Plain):
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.sigmoid(4 * self.net(z + torch.randn_like(z)) + self.embed(label)).reshape(-1, 1, 4, 4)


def save(folder: Path, module: nn.Module, kind: str, rows: int | None = None) -> Path:
    """Write a program's folder; rows None is any number of them."""
    name = {"torchscript": "program.pt", "exported": "program.pt2"}[kind]
    example = (torch.randn(rows or 4, 4), torch.zeros(rows or 4, dtype=torch.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if kind == "torchscript":
            torch.jit.save(torch.jit.script(module.eval()), folder / name)
        else:
            batch = torch.export.Dim("batch")
            shapes = None if rows else ({0: batch}, {0: batch})
            torch.export.save(torch.export.export(module.eval(), example, dynamic_shapes=shapes), folder / name)
    weights, family = cards.Weights(file=name), cards.Family(name=kind)
    cards.write_card(custom_card(family=family, weights=weights), folder)
    return folder


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_good_program_passes(tmp_path: Path, kind: str) -> None:
    assert find(save(tmp_path, Plain(), kind), "golden").state == "passed"


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
@pytest.mark.parametrize(("module", "check"), [(Mixing, "rows"), (Random, "deterministic")])
def test_a_faulty_program_must_be_saved_again(tmp_path: Path, kind: str, module: type[nn.Module], check: str) -> None:
    finding: Finding = find(save(tmp_path, module(), kind), check)
    assert finding.state == "failed"
    assert "save the program again, after module.eval()" in finding.change


def test_a_program_that_mixes_rows_was_likely_saved_in_training_mode(tmp_path: Path) -> None:
    change = find(save(tmp_path, Mixing(), "torchscript"), "rows").change
    assert change.startswith("likely saved or run in training mode: call eval() before saving")


def test_a_program_of_a_fixed_batch_is_reported_with_the_export_option(tmp_path: Path) -> None:
    finding = find(save(tmp_path, Plain(), "exported", rows=4), "weights")
    assert finding.state == "failed"
    assert "dynamic_shapes" in f"{finding.seen} {finding.change}"


class OnCuda(Plain):
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.sigmoid(4 * self.net(z) + torch.zeros([16], device="cuda")).reshape(-1, 1, 4, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it needs a machine without CUDA")
def test_a_program_that_creates_tensors_on_cuda_is_reported_with_its_code(tmp_path: Path) -> None:
    finding = find(save(tmp_path, OnCuda(), "torchscript"), "output")
    assert "it creates tensors on cuda, which this machine does not have (test_checks_programs.py, line" in finding.seen
    assert 'torch.zeros([16], device="cuda")' in finding.seen
    assert finding.change.startswith("create tensors on the device of z (device=z.device)")
    assert finding.change.endswith("then save the program again from the module on the CPU, after module.cpu()")
