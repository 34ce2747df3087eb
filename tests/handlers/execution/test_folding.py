"""Folding: batch normalisation disappears into the layer before it, where nothing else reads that layer."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handlers.execution.folding import fold_norms
from handlers.execution.network import Network, build_network
from handlers.execution.pixels import Values
from handlers.models.gan import ConditionalGan, GanConfig
from handlers.settings import Settings, settings_from_environment
from tests.handlers.toys import LATENT, SIDE, ToySampler, fill_parameters, toy_card

GAN = GanConfig(height=SIDE, width=SIDE, channels=1, latent_dim=LATENT, features=4, stages=2, classes=3)


class Residual(nn.Module):
    """Its convolution is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.convolution(x)
        return h + self.norm(h)


class Skipping(nn.Module):
    """It reads a layer inside its Sequential, in code that torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + (self.layers[0](x) if float(x.sum()) else x)


class ReadingTheNorm(Skipping):
    """It reads the norm's own parameters."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y * self.layers[1].eps if float(x.sum()) else y


class Plain(nn.Module):
    """A forward as most are written."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convolution(x)))


def _with_statistics(module: nn.Module) -> nn.Module:
    """Give norms statistics and parameters that are not those of a new one."""
    torch.manual_seed(5)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            for parameter in part.parameters():
                nn.init.normal_(parameter)
    return module.eval().requires_grad_(False)


def _fold(module: nn.Module, shape: tuple[int, ...]) -> tuple[tuple[str, ...], float]:
    """Fold; return what was folded, and the largest change of the results."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(7))

    def run() -> list[Values]:
        with torch.inference_mode():
            return [module(x).numpy()]

    before = run()[0]
    folded = fold_norms(module, run)
    return folded, float(np.abs(run()[0] - before).max())


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        pytest.param(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), (2, 3, 9), id="Conv1d"),
        pytest.param(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 9, 9), id="Conv2d, 2 groups"),
        pytest.param(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), (2, 3, 9, 9), id="not affine"),
        pytest.param(nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), (2, 1, 4, 4, 4), id="Conv3d"),
        pytest.param(
            nn.ConvTranspose2d(4, 6, 4, stride=2, bias=False), nn.BatchNorm2d(6), (2, 4, 3, 3), id="transpose"
        ),
        pytest.param(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 3, 3), id="transpose, groups"),
        pytest.param(nn.ConvTranspose2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), (2, 4, 3, 3), id="depthwise"),
        pytest.param(nn.Linear(5, 7), nn.BatchNorm1d(7), (4, 5), id="Linear"),
    ],
)
def test_a_folded_layer_gives_the_same_results(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    module = _with_statistics(nn.Sequential(layer, norm, nn.ReLU()))
    folded, change = _fold(module, shape)
    assert folded == ("1",)
    assert isinstance(module.get_submodule("1"), nn.Identity)
    assert change < 1e-5


def test_a_norm_is_found_in_a_forward() -> None:
    folded, change = _fold(_with_statistics(Plain()), (2, 3, 8, 8))
    assert folded == ("norm",)
    assert change < 1e-5


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        pytest.param(Residual(), (2, 3, 8, 8), id="a layer read twice"),
        pytest.param(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)), (2, 3, 8, 8), id="a norm first"),
        pytest.param(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)), (2, 3, 8, 8), id="a rectifier"),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)), (2, 3, 8, 8), id="batch"
        ),
        pytest.param(
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)), nn.BatchNorm2d(3)),
            (2, 3, 8, 8),
            id="a computed weight",
        ),
    ],
)
def test_a_norm_whose_layer_cannot_take_it_is_kept(
    module: nn.Module, shape: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert _fold(_with_statistics(module), shape) == ((), 0.0)
    assert "batch normalisation stays unfolded at" in caplog.text


def test_a_norm_in_training_mode_is_kept() -> None:
    module = _with_statistics(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    module[1].train()  # type: ignore[index]
    assert fold_norms(module, lambda: []) == ()


def test_a_layer_that_is_shared_is_kept() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    module = _with_statistics(nn.Sequential(layer, nn.BatchNorm2d(3), layer))
    assert _fold(module, (2, 3, 8, 8)) == ((), 0.0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Skipping, "results would change by up to"), (ReadingTheNorm, "the model fails without it")],
    ids=["a hidden reader", "a reader of the norm"],
)
def test_folding_that_changes_results_is_undone(
    kind: Callable[[], nn.Module], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = _with_statistics(kind())
    assert _fold(module, (2, 3, 8, 8)) == ((), 0.0)
    assert f"batch normalisation stays unfolded: {reason}" in caplog.text


def test_a_lack_of_memory_while_comparing_is_raised() -> None:
    """Else a worker would go on unfolded, under the name of folded numerics."""

    def run() -> list[Values]:
        raise MemoryError

    with pytest.raises(MemoryError):
        fold_norms(_with_statistics(Plain()), run)


def _build(settings: Settings) -> Network:
    gan = ConditionalGan(GAN)
    fill_parameters(gan)
    return build_network(toy_card(), _with_statistics(gan), settings)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_is_folded_in_every_precision(precision: str) -> None:
    settings = Settings(precision="bf16" if precision == "bf16" else "fp32")
    assert _build(settings).folded == ("layers.3", "layers.6")


def test_folding_can_be_switched_off() -> None:
    network = _build(settings_from_environment({"FOUNT_WORKER_FOLDED": "0"}))
    assert network.folded == ()
    assert isinstance(network.module.get_submodule("layers.3"), nn.BatchNorm2d)


def test_a_model_without_norms_is_not_run() -> None:
    def run() -> list[Values]:
        raise AssertionError

    assert fold_norms(ToySampler(3), run) == ()
