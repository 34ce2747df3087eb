"""TorchScript in which a file operator was planted: refused before torch reads it, so that it opens no file."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from handlers.cards.card import write_card
from handlers.loading.program import load_program
from tests.handlers.custom_models import Generator, inputs, program_card, reason_of, rewrite


class Writing(nn.Module):
    """Writes a file as soon as it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Parameter(torch.ones(6))

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.net, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.net, self.training = state
        torch.save(self.net, "/PLACE/ran")

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return z * self.net


class Reading(Generator):
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.net(z) + torch.from_file("/etc/hostname", size=1)


def save(file: Path, module: nn.Module, place: Path) -> Path:
    """Script and save a module, with the folder that it writes to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(file)
    return rewrite(file, "/PLACE", str(place))


def _refusal(file: Path) -> str:
    with pytest.raises(ValueError, match=r"so it is not loaded: .*; save a program that only computes") as caught:
        load_program(file, "torchscript", most_rows=8)
    return str(caught.value)


def test_a_program_that_would_write_a_file_when_read_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "program.pt", Writing(), tmp_path)
    write_card(program_card("torchscript", "program.pt"), tmp_path)
    assert "program.pt contains torch.save, which opens files," in reason_of(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_program_that_would_read_a_file_is_refused(tmp_path: Path) -> None:
    assert "torch.from_file, which opens files," in _refusal(save(tmp_path / "program.pt", Reading(), tmp_path))


@pytest.mark.parametrize(
    ("planted", "result"),
    [
        ('getattr(torch, "save")(', 'getattr of "save"'),
        ('getattr(torch, "sa" "ve")(', 'getattr of "sa" "ve"'),
        ('getattr(torch, "\\163ave")(', 'getattr of "\\163ave"'),
        ("ops.aten.save(", "ops.aten.save, which opens files,"),
        ("(getattr)(torch, name)(", "getattr of name"),
        ("x = getattr; torch.sa(", "getattr under another name"),
        ("torch.sa ve(", "code that cannot be parsed"),
    ],
)  # fmt: skip
def test_a_computed_name_is_refused(tmp_path: Path, planted: str, result: str) -> None:
    file = save(tmp_path / "program.pt", Writing(), tmp_path)
    assert result in _refusal(rewrite(file, "torch.save(", planted))


def test_planted_code_would_run_without_the_check(tmp_path: Path) -> None:
    file = save(tmp_path / "program.pt", Writing(), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(file)
    assert (tmp_path / "ran").exists()


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "program.pt", Generator(), tmp_path)
    with zipfile.ZipFile(file, "a") as archive:
        root, _, code = next(name for name in archive.namelist() if name.endswith(".py")).partition("/")
        archive.writestr(f"{root}/{code.upper()}", b"")
    assert "two members of one name" in _refusal(file)


def test_harmless_uses_of_the_word_save_are_accepted(tmp_path: Path) -> None:
    class Speaking(Generator):
        def forward(self, z: Tensor, label: Tensor) -> Tensor:
            assert z.shape[0] > 0, "torch.save(nothing)"
            return self.net(z)

    file = save(tmp_path / "program.pt", Speaking(), tmp_path)
    assert load_program(file, "torchscript", most_rows=8)(*inputs(3)).shape == (3, 16)
