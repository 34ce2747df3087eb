"""The DCGAN: widths, pictures, configurations, rows alone and together, its discriminator, and its training."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fount.address import Addresses
from handlers.family import Deadline, DeadlinePassed, Draw, Noise
from handlers.models import load_family
from handlers.models.dcgan import Dcgan, DcganConfig, DcganDiscriminator
from handlers.recipes.catalogue import RECIPES
from tests.handlers.training_toys import advance, are_equal, new_task, refit

CONFIG = {"height": 16, "width": 24, "channels": 3, "latent_dim": 5, "features": 4, "stages": 3, "classes": 6}


def build(**changes: int) -> Dcgan:
    torch.manual_seed(0)
    return Dcgan.from_config({**CONFIG, **changes}).eval().requires_grad_(False)


def draw(module: Dcgan, count: int, start_index: int = 0, truncation: float | None = None) -> Tensor:
    noise = Noise(addresses=Addresses.of_range(3, start_index, count), device=torch.device("cpu"))
    labels = (torch.arange(count) + start_index) % 6
    return module.sample(noise, labels, Draw(truncation=truncation), Deadline())


def discriminator() -> DcganDiscriminator:
    torch.manual_seed(0)
    return DcganDiscriminator(DcganConfig.read(CONFIG), 6)


def weights_of(network: nn.Module, kind: type[nn.Module]) -> list[tuple[int, ...]]:
    return [tuple(layer.weight.shape[:2]) for layer in network.modules() if isinstance(layer, kind)]  # type: ignore[union-attr]


def test_the_family_is_built_by_name() -> None:
    assert isinstance(load_family("dcgan", CONFIG), Dcgan)


def test_channels_halve_from_stage_to_stage() -> None:
    assert weights_of(build(), nn.ConvTranspose2d) == [(16, 8), (8, 4), (4, 3)]


def test_the_discriminator_doubles_channels() -> None:
    assert weights_of(discriminator(), nn.Conv2d) == [(6, 3), (12, 6), (24, 12)]


def test_the_shipped_shape_fits_into_4_mb() -> None:
    module = Dcgan.from_config(RECIPES["shapes-dcgan"].config)
    assert sum(4 * value.numel() for value in module.state_dict().values()) == 3_653_468


@pytest.mark.parametrize("changes", [{}, {"stages": 1}, {"channels": 1}, {"height": 32, "width": 32}])
def test_a_picture_has_the_size_of_the_configuration(changes: dict[str, int]) -> None:
    config = CONFIG | changes
    images = draw(build(**changes), 2)
    assert tuple(images.shape) == (2, config["channels"], config["height"], config["width"])
    assert -1 <= images.min() < images.max() <= 1


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    module = build()
    torch.testing.assert_close(draw(module, 1, start_index=5), draw(module, 8)[5:6], rtol=0, atol=1e-6)


def test_another_label_is_another_picture_of_the_same_noise() -> None:
    z = torch.zeros(1, 5)
    assert not torch.equal(build()(z, torch.tensor([1])), build()(z, torch.tensor([2])))


def test_truncation_changes_the_picture() -> None:
    assert not torch.equal(draw(build(), 4, truncation=0.5), draw(build(), 4))


def test_a_picture_without_a_label_is_refused() -> None:
    noise = Noise(addresses=Addresses.of_range(3, 0, 1), device=torch.device("cpu"))
    with pytest.raises(ValueError, match="6 classes takes one label for each row"):
        build().sample(noise, None, Draw(), Deadline())


def test_a_passed_deadline_ends_a_draw() -> None:
    noise = Noise(addresses=Addresses.of_range(3, 0, 1), device=torch.device("cpu"))
    with pytest.raises(DeadlinePassed):
        build().sample(noise, torch.tensor([0]), Draw(), Deadline(unix_s=1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, r"unknown or missing keys \['depth'\]"),
        ({"classes": 0}, "classes is 0, must be a whole number of 1 or more"),
        ({"height": 20}, r"height is 20, must be divisible by 2\^stages"),
    ],
    ids=["unknown", "zero", "size"],
)
def test_a_wrong_configuration_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dcgan.from_config(CONFIG | changes)


def test_a_score_is_that_of_the_picture_and_that_of_the_class() -> None:
    network = discriminator().eval()
    images = torch.rand(2, 3, 16, 24)
    h = network.layers(images)
    matches = (network.classes(torch.tensor([4, 5])) * h.sum((2, 3)) / 6**0.5).sum(1)
    expected = network.head(h.flatten(1))[:, 0] + matches
    torch.testing.assert_close(network(images, torch.tensor([4, 5])), expected)


def test_every_layer_of_the_discriminator_has_a_spectral_norm_of_1() -> None:
    network = discriminator()
    for _ in range(50):  # each call improves the estimate
        network(torch.zeros(1, 3, 16, 24), torch.tensor([0]))
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)]
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]
    assert norms == pytest.approx([1.0] * 5, abs=0.02)


def test_a_resumed_training_ends_in_the_same_weights() -> None:
    config = {"height": 8, "width": 8, "channels": 1, "latent_dim": 4, "features": 4, "stages": 2, "classes": 10}
    recipe = refit(
        dataclasses.replace(RECIPES["shapes-dcgan"], config=config), batch=8, discriminator_features=4
    )  # of digits
    whole, first, second = (new_task(recipe) for _ in range(3))
    second.load_state(advance(first, 0, 3).state())
    ended = advance(second, 3, 6).averaged().state_dict()
    assert are_equal(ended, advance(whole, 0, 6).averaged().state_dict())
    assert not are_equal(ended, new_task(recipe).averaged().state_dict())
