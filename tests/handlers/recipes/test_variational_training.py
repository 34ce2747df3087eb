"""Training of variational autoencoders: what each loss reaches, resuming, and the effect of every option."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.recipes.catalogue import RECIPES, Recipe
from tests.handlers.training_toys import advance, are_equal, new_task, refit


def small(name: str, **changes: Any) -> Recipe:
    """A recipe for pictures of 8×8 pixels, with a small network."""
    config = {"height": 8, "width": 8, "channels": 1, "latent_dim": 3, "hidden": [16]}
    recipe = dataclasses.replace(RECIPES[name], config=config, data="digits")
    return refit(recipe, **{"batch": 16, **changes})


def trained(recipe: Recipe, start: int = 0, stop: int = 4, seed: int = 5) -> dict[str, Tensor]:
    return advance(new_task(recipe, seed=seed), start, stop).state()


def part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(f"{name}.")}


@pytest.mark.parametrize("name", ["mnist-vae", "mnist-vaegan"])
def test_a_resumed_variational_task_ends_with_the_same_bits(name: str) -> None:
    recipe = small(name)
    whole, cut = trained(recipe, stop=12), new_task(recipe, seed=6)
    cut.load_state(trained(recipe, stop=11))
    assert are_equal(advance(cut, 11, 12).state(), whole)


@pytest.mark.parametrize("name", ["mnist-vae", "mnist-vaegan"])
def test_the_bound_rises_in_training(name: str) -> None:
    task = new_task(small(name, averaging=0.05), steps=200)
    first = float(task.step(0)["loss"])
    advance(task, 1, 150)
    assert float(task.step(150)["loss"]) < 0.9 * first


def test_the_discriminator_is_not_trained_in_the_warm_up() -> None:
    recipe = small("mnist-vaegan", warm_share=0.5)
    before, warm, after = (part(trained(recipe, stop=stop), "discriminator") for stop in (0, 6, 7))
    assert are_equal(before, warm)
    assert not are_equal(warm, after)


def test_the_adversarial_loss_reaches_the_decoder_and_not_the_encoder() -> None:
    weak, strong = (
        trained(small("mnist-vaegan", warm_share=0.0, adversarial_share=share), stop=1) for share in (0.1, 10.0)
    )
    assert are_equal(part(weak, "module.encoder"), part(strong, "module.encoder"))
    assert not are_equal(part(weak, "module.decoder"), part(strong, "module.decoder"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("warm_share", 0.25),
        ("rate", 5e-4),
        ("adversarial_rate", 1e-3),
        ("discriminator_features", 4),
        ("batch", 8),
        ("discriminator_rate", 2e-3),
        ("betas", (0.9, 0.99)),
        ("pixel_share", 0.1),
        ("adversarial_share", 3.0),
        ("averaging", 0.5),
    ],
    ids=lambda value: str(value),
)
def test_every_option_of_a_fit_with_a_discriminator_changes_the_weights(option: str, value: object) -> None:
    plain, changed = (
        part(trained(refit(small("mnist-vaegan", warm_share=0.5), **changes), stop=10), "average")
        for changes in ({}, {option: value})
    )
    assert not are_equal(plain, changed)


def test_gradients_towards_real_pictures_are_as_long_as_those_of_reconstructions() -> None:
    task: Any = new_task(small("mnist-vaegan"))
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    loss, ours, theirs = task._compare(images, logits)
    assert loss > 0
    assert float(theirs.norm()) == pytest.approx(float(ours.norm()), rel=1e-3)
