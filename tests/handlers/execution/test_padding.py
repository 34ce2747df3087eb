"""Padding of single layers: found where rows depend on the batch, and nowhere else."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from handlers.execution.padding import find_padding, pad_layers, read_padding, unpad_layers
from tests.handlers.toys import Rounding

SIZES = (1, 2, 4, 8, 16)


class Folded(nn.Module):
    """Each row is four rows of its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Rounding(3, 3, below=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 3)).reshape(len(x), -1)


class Twice(Folded):
    """Its layer gets two numbers of rows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.layer(x[:, :3]).repeat(1, 4)


def _find(module: nn.Module, width: int) -> dict[str, dict[int, int]]:
    x = torch.randn(16, width, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        found = find_padding(module, partial(module, x), reference=16, sizes=SIZES, wanted=(1, 2))
    return {name: dict(sizes) for name, sizes in found.items()}


def test_only_the_layer_that_depends_on_the_batch_is_padded() -> None:
    module = nn.Sequential(Rounding(3, 3, below=0), nn.Tanh(), Rounding(3, 3, below=4))
    assert _find(module, 3) == {"2": {1: 4, 2: 4}}


def test_a_layer_is_padded_no_further_than_it_needs() -> None:
    module = nn.Sequential(Rounding(3, 3, below=2), Rounding(3, 3, below=9))
    assert _find(module, 3) == {"0": {1: 2}, "1": {1: 16, 2: 16}}


def test_the_rows_of_a_layer_may_be_a_multiple_of_the_batch() -> None:
    assert _find(Folded(), 12) == {"layer": {4: 8}}


def test_a_layer_called_with_several_numbers_of_rows_is_left_alone() -> None:
    assert _find(Twice(), 12) == {}


def test_a_layer_that_changes_its_input_is_left_alone() -> None:
    assert _find(nn.Sequential(Rounding(3, 3, below=0), nn.SiLU(inplace=True)), 3) == {}


def test_a_padded_layer_gives_a_row_the_bits_of_a_larger_batch() -> None:
    module = nn.Sequential(Rounding(3, 3, below=4))
    x = torch.randn(4, 3)
    expected = module(x)[:1]
    pad_layers(module, {"0": {1: 4}, "gone": {1: 4}})
    assert read_padding(module) == {"0": {1: 4}}
    assert torch.equal(module(x[:1]), expected)
    unpad_layers(module)
    assert read_padding(module) == {}
    assert not torch.equal(module(x[:1]), expected)


def test_padding_keeps_the_memory_layout() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1))
    seen: list[tuple[int, ...]] = []
    module[0].forward = lambda x: seen.append(x.stride()) or x
    pad_layers(module, {"0": {1: 2}})
    module(torch.zeros(1, 3, 4, 4).to(memory_format=torch.channels_last))
    assert seen == [(48, 1, 12, 3)]
