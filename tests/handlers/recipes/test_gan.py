"""The conditional GAN: shapes, configurations, spectral norms, hinge losses, and independent rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fount.address import Addresses
from handlers.family import Deadline, DeadlinePassed, Draw, Noise, Sampler
from handlers.models import load_family
from handlers.models.gan import ConditionalGan, Discriminator, GanConfig, discriminator_loss, generator_loss

CONFIG = {"height": 8, "width": 12, "channels": 3, "latent_dim": 5, "features": 4, "stages": 2, "classes": 10}


def build(**changes: int) -> ConditionalGan:
    torch.manual_seed(0)
    return ConditionalGan.from_config({**CONFIG, **changes}).eval().requires_grad_(False)


def noise(count: int, start_index: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(3, start_index, count), device=torch.device("cpu"))


def draw(module: Sampler, count: int, start_index: int = 0, truncation: float | None = None) -> Tensor:
    labels = (torch.arange(count) + start_index) % 10
    return module.sample(noise(count, start_index), labels, Draw(truncation=truncation), Deadline())


def discriminator(stages: int = 2, projection: int = 0) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(GanConfig.read({**CONFIG, "stages": stages}), 6, projection)


# --- The generator ----------------------------------------------------------------------------------------------------


def test_the_family_is_built_by_name() -> None:
    assert isinstance(load_family("conditional-gan", CONFIG), ConditionalGan)


@pytest.mark.parametrize("changes", [{}, {"stages": 1}, {"channels": 1}, {"height": 28, "width": 28}])
def test_a_picture_has_the_size_of_the_configuration(changes: dict[str, int]) -> None:
    config = CONFIG | changes
    images = draw(build(**changes), 2)
    assert tuple(images.shape) == (2, config["channels"], config["height"], config["width"])
    assert -1 <= images.min() < images.max() <= 1


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    module = build()
    together = draw(module, 8)
    torch.testing.assert_close(draw(module, 1, start_index=5), together[5:6], rtol=0, atol=1e-6)


def test_another_label_is_another_picture_of_the_same_noise() -> None:
    module = build()
    seven, eight = (module.sample(noise(1), torch.tensor([k]), Draw(), Deadline()) for k in (7, 8))
    assert not torch.equal(seven, eight)


def test_truncation_changes_the_picture() -> None:
    assert not torch.equal(draw(build(), 4, truncation=0.5), draw(build(), 4))


def test_a_picture_without_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="10 classes takes one label for each row"):
        build().sample(noise(1), None, Draw(), Deadline())


def test_a_passed_deadline_ends_a_draw() -> None:
    with pytest.raises(DeadlinePassed):
        build().sample(noise(1), torch.tensor([0]), Draw(), Deadline(unix_s=1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, r"unknown or missing keys \['depth'\]"),
        ({"classes": 0}, "classes is 0, must be a whole number of 1 or more"),
        ({"features": "many"}, "features is 'many'"),
        ({"stages": True}, "stages is True"),
        ({"height": 10}, r"height is 10, must be divisible by 2\^stages"),
    ],
    ids=["unknown", "zero", "text", "bool", "size"],
)
def test_a_wrong_configuration_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConditionalGan.from_config(CONFIG | changes)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"missing keys \['classes'\]"):
        ConditionalGan.from_config({key: value for key, value in CONFIG.items() if key != "classes"})


# --- The discriminator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stages", "projection"), [(1, 0), (2, 0), (2, 7)])
def test_a_score_is_one_number_a_row(stages: int, projection: int) -> None:
    scores = discriminator(stages, projection)(torch.zeros(4, 3, 8, 12), torch.arange(4))
    assert tuple(scores.shape) == (4,)


def test_a_score_depends_on_the_label() -> None:
    seven, eight = discriminator()(torch.zeros(2, 3, 8, 12), torch.tensor([7, 8]))
    assert seven != eight


def test_a_projection_adds_the_product_of_features_and_class() -> None:
    network = discriminator(projection=7).eval()
    assert network.classes is not None
    maps = torch.zeros(1, 13, 8, 12)
    maps[:, 3 + 4] = 1  # the map of class 4, behind three channels
    h = network.layers(maps)
    expected = network.head(h)[:, 0] + (h * network.classes(torch.tensor([4]))).sum(1)
    torch.testing.assert_close(network(torch.zeros(1, 3, 8, 12), torch.tensor([4])), expected)


@pytest.mark.parametrize(("projection", "layers_of_all"), [(0, 4), (7, 6)])
def test_every_layer_has_a_spectral_norm_of_1(projection: int, layers_of_all: int) -> None:
    network = discriminator(projection=projection)
    for _ in range(50):  # each call improves the estimate
        network(torch.zeros(1, 3, 8, 12), torch.tensor([0]))
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)]
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]
    assert norms == pytest.approx([1.0] * layers_of_all, abs=0.02)


# --- Losses -----------------------------------------------------------------------------------------------------------


def test_the_hinge_of_the_discriminator_has_a_closed_form() -> None:
    loss = discriminator_loss(torch.tensor([0.5, 3.0]), torch.tensor([-2.0, 0.5]))
    assert loss.item() == pytest.approx(0.25 + 0.75)  # mean(0.5, 0) + mean(0, 1.5)


def test_scores_beyond_1_on_their_side_cost_nothing() -> None:
    assert discriminator_loss(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -9.0])).item() == 0


def test_the_generator_loss_is_the_negative_mean_score() -> None:
    assert generator_loss(torch.tensor([1.0, 2.0])).item() == -1.5
