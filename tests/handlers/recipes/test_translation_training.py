"""Training of models that are given reduced pictures: their losses, what they start from, and the effect of options."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from handlers.family import Deadline, Draw, Given, Noise
from handlers.models.diffusion import EdmDiffusion
from handlers.models.image_diffusion import ImageDiffusion
from handlers.models.image_regressor import ImageRegressor
from handlers.recipes.catalogue import RECIPES, Recipe
from handlers.recipes.data.load import TrainingData
from handlers.recipes.data.reductions import reduce_images
from handlers.recipes.run.probes import TranslationProbe
from handlers.recipes.run.training import train_module
from handlers.recipes.tasks.translation import ImageDiffusionTask
from tests.handlers.training_toys import CPU, MODEL_STORE, advance, are_equal, new_task, options, refit

GIVEN = {"height": 4, "width": 4, "channels": 1}
SMALL = {"height": 8, "width": 8, "channels": 1, "given": GIVEN}
MEANS = torch.arange(4.0).reshape(1, 1, 2, 2)


def sampler(**changes: float) -> Recipe:
    recipe = RECIPES["mnist-sr4"]
    config = {**recipe.config, **SMALL, "features": [16, 32], "sigma_data": 0.75, "sigma_min": 0.01, "levels": 17}
    return refit(dataclasses.replace(recipe, config=config, data="digits", evaluator=None), **{"batch": 16, **changes})


def regressor(**changes: float) -> Recipe:
    recipe = RECIPES["mnist-sr4-regressor"]
    recipe = dataclasses.replace(recipe, config={**SMALL, "features": [8, 8]}, data="digits", evaluator=None)
    return refit(recipe, **{"batch": 16, **changes})


def test_a_block_is_reduced_to_its_mean() -> None:
    images = MEANS.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) + torch.tensor([0.5, -0.5]).repeat(2)
    assert torch.equal(reduce_images(images, (1, 2, 2)), MEANS)


def test_a_colour_is_reduced_to_its_largest_channel() -> None:
    assert torch.equal(reduce_images(torch.cat([MEANS, MEANS / 2, 0 * MEANS], dim=1), (1, 2, 2)), MEANS)


def test_an_untrained_network_has_a_loss_of_1() -> None:
    loss = float(new_task(sampler(batch=500)).step(0)["loss"])
    assert loss == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("recipe", [sampler(averaging=0.05), regressor()], ids=["sampler", "regressor"])
def test_the_loss_falls_in_training(recipe: Recipe) -> None:
    task = new_task(recipe, steps=200)
    first = float(task.step(0)["loss"])
    assert float(advance(task, 1, 80).step(80)["loss"]) < 0.8 * first


@pytest.mark.parametrize(
    ("option", "value"), [("log_sigma_mean", -2.0), ("log_sigma_spread", 0.5), ("max_gradient_norm", 0.01)]
)
def test_every_option_changes_the_weights(option: str, value: float) -> None:
    usual, other = (advance(new_task(recipe), 0, 3).state() for recipe in (sampler(), sampler(**{option: value})))
    assert not are_equal(usual, other)


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colours"])
def test_it_starts_as_the_model_that_it_starts_from_without_class(channels: int) -> None:
    recipe = RECIPES["digits-diffusion"]
    start = EdmDiffusion.from_config(recipe.config)
    with torch.no_grad():
        for number, parameter in enumerate(start.parameters()):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    given = GIVEN if channels == 1 else {"height": 8, "width": 8, "channels": 1}
    own = dataclasses.replace(sampler(), config={**sampler().config, "channels": channels, "given": given})
    task = new_task(own)
    assert isinstance(task, ImageDiffusionTask)
    task.start_from(start.state_dict())
    module, sigma = task.averaged(), torch.tensor([0.7], dtype=torch.float64)
    assert isinstance(module, ImageDiffusion)
    x, enlarged = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    expected = start.denoise(x, sigma, None).expand(-1, channels, -1, -1)
    torch.testing.assert_close(module.denoise(x.expand(-1, channels, -1, -1), enlarged, sigma), expected)


def test_a_training_starts_from_a_model_folder(digits: TrainingData, tmp_path: Path) -> None:
    how, folder = options(tmp_path, steps=1), MODEL_STORE / "digits-diffusion"
    own = train_module(sampler(rate=0.0), digits, None, how, start_folder=folder, log=lambda _line: None)
    assert own.state_dict()["network.output.weight"].abs().max() > 0.01  # which is 0 at the start of any other


def test_a_regressor_answers_within_the_range() -> None:
    module = ImageRegressor.from_config({**SMALL, "features": [8, 8]})
    with torch.no_grad():
        module.output.bias.fill_(3.0)
    noise = Noise(addresses=None, device=CPU)  # type: ignore[arg-type]
    answers = module.translate(Given(values=torch.rand(2, 1, 4, 4)), None, noise, Draw(), Deadline())
    assert torch.equal(answers, torch.ones(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"features": [12]}, "must list multiples of 8", id="features"),
        pytest.param({"given": {"height": 3, "width": 4, "channels": 1}}, "height is 8, must be divisible", id="3"),
        pytest.param({"given": {"height": 4}}, "must have channels, height, width", id="no-width"),
        pytest.param({"channels": 0}, "whole numbers", id="no-channels"),
        pytest.param({"depth": 1}, r"unknown or missing keys \['depth'\]", id="unknown"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageRegressor.from_config({**SMALL, "features": [8, 8], **changes})


def test_a_snapshot_shows_given_pictures_rows_and_answers(digits: TrainingData) -> None:
    probe = TranslationProbe(digits, (1, 4, 4), (0.0, 1.0), CPU)
    module = ImageRegressor.from_config({**SMALL, "features": [8, 8]})
    assert probe.measure(module, 7).step == 7
    assert probe.draw(module).width > 10 * 8
