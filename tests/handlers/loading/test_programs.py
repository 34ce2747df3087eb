"""Programs: TorchScript and exported programs serve as they are, and no code of a file ever runs."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handlers.cards.card import write_card
from handlers.loading.program import load_program
from tests.handlers.custom_models import (
    Generator,
    Trap,
    draw,
    inputs,
    latents,
    program_card,
    reason_of,
    rewrite,
    save_exported,
    serve,
)
from tests.handlers.toys import DESCRIBE_SCRIPT as SERVE

LABELS = (0, 1, 2)


class Sampling(Generator):
    @torch.jit.export
    def sample(self, z: Tensor, label: Tensor) -> Tensor:
        return -self.forward(z, label)


class Stuck(Generator):
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return super().forward(z, label).reshape(z.shape[0], 1, 4, 4)


def _save_scripted(file: Path, module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(file)


def _save_traced(file: Path, module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, inputs(2)).save(file)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator().eval()


@pytest.mark.parametrize(
    ("kind", "file", "save"),
    [
        ("torchscript", "scripted.pt", _save_scripted),
        ("torchscript", "traced.pt", _save_traced),
        ("exported", "program.pt2", save_exported),
    ],
    ids=["scripted", "traced", "exported"],
)
def test_a_program_draws_what_its_module_drew(
    tmp_path: Path, generator: Generator, kind: str, file: str, save: Callable[[Path, nn.Module], None]
) -> None:
    (tmp_path / "own").mkdir()
    save(tmp_path / "own" / file, generator)
    write_card(program_card(kind, file), tmp_path / "own")
    worker = serve(tmp_path / "own", tmp_path)
    together = draw(worker, count=3, labels=LABELS)
    expected = generator(latents(3), torch.tensor(LABELS)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(together, expected.detach(), atol=1e-6)
    np.testing.assert_array_equal(draw(worker, start=2, labels=(2,)), together[2:])


def test_the_method_sample_of_a_program_is_preferred(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Sampling().eval()
    (tmp_path / "own").mkdir()
    _save_scripted(tmp_path / "own/program.pt", module)
    write_card(program_card("torchscript", "program.pt"), tmp_path / "own")
    expected = -module(latents(1), torch.tensor([0])).permute(0, 2, 3, 1)
    np.testing.assert_allclose(draw(serve(tmp_path / "own", tmp_path), labels=(0,)), expected.detach(), atol=1e-6)


def _reason(folder: Path, kind: str, file: str, classes: int = 3) -> str:
    write_card(program_card(kind, file, classes), folder)
    return reason_of(folder)


def test_a_program_exported_for_one_number_of_rows_is_refused(tmp_path: Path, generator: Generator) -> None:
    save_exported(tmp_path / "program.pt2", generator, rows=False)
    assert _reason(tmp_path, "exported", "program.pt2") == (
        'program.pt2 takes exactly 2 rows of z; export it again with b = torch.export.Dim("batch") and '
        "dynamic_shapes=({0: b}, ...), one entry for each input"
    )


def test_a_program_exported_for_few_rows_is_refused(tmp_path: Path, generator: Generator) -> None:
    save_exported(tmp_path / "program.pt2", generator, rows=torch.export.Dim("batch", min=1, max=8))
    assert "takes only 1 to 8 rows of z; export it again" in _reason(tmp_path, "exported", "program.pt2")


@pytest.mark.parametrize("rows", ["AUTO", "DYNAMIC"])
def test_a_program_with_automatically_dynamic_rows_is_loaded(tmp_path: Path, generator: Generator, rows: str) -> None:
    save_exported(tmp_path / "program.pt2", generator, rows=getattr(torch.export.Dim, rows))
    module = load_program(tmp_path / "program.pt2", "exported", most_rows=256)
    assert module.eval()(*inputs(1)).shape == (1, 1, 4, 4)


def test_no_part_of_a_program_is_in_training_mode(tmp_path: Path, generator: Generator) -> None:
    save_exported(tmp_path / "program.pt2", generator)
    module = load_program(tmp_path / "program.pt2", "exported", most_rows=256)
    assert not [name for name, part in module.train().named_modules() if part.training]


def test_a_program_traced_for_one_number_of_rows_is_reported(tmp_path: Path) -> None:
    class Fixed(Generator):
        def forward(self, z: Tensor, label: Tensor) -> Tensor:
            return super().forward(z, label).reshape(2, 1, 4, 4)

    _save_traced(tmp_path / "program.pt", Fixed())
    reason = _reason(tmp_path, "torchscript", "program.pt")
    assert "shape '[2, 1, 4, 4]' is invalid" in reason
    assert reason.endswith("it must accept z, and the label if it has classes, of any number of rows")


def test_a_label_on_a_card_without_classes_is_refused(tmp_path: Path, generator: Generator) -> None:
    _save_scripted(tmp_path / "program.pt", generator)
    reason = _reason(tmp_path, "torchscript", "program.pt", classes=0)
    assert reason.startswith("program.pt: Generator.forward(z, label) takes label after z, the card has no classes")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it needs a machine without CUDA")
@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_program_that_creates_tensors_on_cuda_is_reported(tmp_path: Path, kind: str) -> None:
    class Placed(Generator):
        def forward(self, z: Tensor, label: Tensor) -> Tensor:
            return torch.tanh(self.net(z) + torch.zeros([16], device="cpu")).reshape(-1, 1, 4, 4)

    file = tmp_path / "program.pt"
    (_save_scripted if kind == "torchscript" else save_exported)(file, Placed())
    rewrite(file, 'torch.device("cpu")', 'torch.device("cuda")')
    rewrite(file, '"as_device": {"type": "cpu"', '"as_device": {"type": "cuda"')
    reason = _reason(tmp_path, kind, "program.pt")
    assert "it creates tensors on cuda, which this machine does not have (" in reason
    assert "torch.zeros([16], device=" in reason or "torch.ops.aten.zeros.default([16], device" in reason
    assert "; create tensors on the device of z (device=z.device), and register constants as buffers" in reason


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
@pytest.mark.parametrize(("kind", "save"), [("torchscript", _save_scripted), ("exported", save_exported)])
def test_a_truncated_program_is_reported(
    tmp_path: Path, generator: Generator, kind: str, save: Callable[[Path, nn.Module], None], kept: float
) -> None:
    save(tmp_path / "program.pt2", generator)
    data = (tmp_path / "program.pt2").read_bytes()
    (tmp_path / "program.pt2").write_bytes(data[: int(len(data) * kept)])
    reason = _reason(tmp_path, kind, "program.pt2")
    assert f"program.pt2 cannot be read as {kind}" in reason
    assert reason.endswith("save the program again with this version of torch, or copy the file again")


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("torchscript", "program.pt is exported, not a program of kind torchscript; set family.name to exported"),
        ("exported", "program.pt is torchscript, not a program of kind exported; set family.name to torchscript"),
    ],
)
def test_the_other_kind_of_program_is_refused(tmp_path: Path, generator: Generator, kind: str, result: str) -> None:
    (save_exported if kind == "torchscript" else _save_scripted)(tmp_path / "other.pt2", generator)
    (tmp_path / "other.pt2").rename(tmp_path / "program.pt")
    assert _reason(tmp_path, kind, "program.pt") == result


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_pickle_for_a_program_is_refused_and_not_read(tmp_path: Path, kind: str) -> None:
    torch.save(Trap(tmp_path / "ran"), tmp_path / "program.pt")
    assert "program.pt is a pickle" in _reason(tmp_path, kind, "program.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_worker_runs_a_program_from_its_archive_only(tmp_path: Path, generator: Generator) -> None:
    (tmp_path / "own").mkdir()
    save_exported(tmp_path / "own/program.pt2", generator)
    write_card(program_card("exported", "program.pt2"), tmp_path / "own")
    serve(tmp_path / "own", tmp_path)
    place = tmp_path / "unpacked"
    command = [sys.executable, "-W", "error", "-c", SERVE]
    environment = dict(os.environ) | {"PYTHONPATH": str(place)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() == "2"
