"""Training of diffusion models: its loss, the share of rows without a class, and the effect of every option."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from handlers.models.diffusion import EdmDiffusion
from handlers.recipes.catalogue import RECIPES, Recipe
from tests.handlers.training_toys import advance, are_equal, new_task, refit


def small(**changes: float) -> Recipe:
    recipe = RECIPES["digits-diffusion"]
    recipe = dataclasses.replace(recipe, config={**recipe.config, "features": [8, 8]})
    return refit(recipe, **{"batch": 16, **changes})


def test_an_untrained_network_has_a_loss_of_1() -> None:
    loss = float(new_task(small(batch=500)).step(0)["loss"])
    assert loss == pytest.approx(1.0, abs=0.15)


def test_the_loss_falls_in_training() -> None:
    task = advance(new_task(small(averaging=0.05), steps=200), 0, 150)
    assert float(task.step(150)["loss"]) < 0.8


@pytest.mark.parametrize(("share", "trained"), [(0.0, list(range(10))), (1.0, [10])], ids=["never", "always"])
def test_rows_without_their_class_train_no_class(share: float, trained: list[int]) -> None:
    task = advance(new_task(small(label_dropout=share, batch=100)), 0, 3)
    assert isinstance(task.module, EdmDiffusion)
    table = task.module.network.of_class.weight
    assert table.any(dim=1).nonzero().flatten().tolist() == trained


@pytest.mark.parametrize(
    ("option", "value"),
    [("label_dropout", 0.5), ("log_sigma_mean", -2.0), ("log_sigma_spread", 0.5), ("max_gradient_norm", 0.01)],
)
def test_every_option_of_diffusion_changes_the_weights(option: str, value: float) -> None:
    usual, other = (advance(new_task(recipe), 0, 3).state() for recipe in (small(), small(**{option: value})))
    assert not are_equal(usual, other)


def test_a_resumed_diffusion_ends_with_the_same_bits() -> None:
    whole, cut = advance(new_task(small()), 0, 4).state(), new_task(small(), seed=6)
    cut.load_state(advance(new_task(small()), 0, 3).state())
    assert are_equal(advance(cut, 3, 4).state(), whole)


def test_an_untrained_network_keeps_a_known_share_of_a_picture() -> None:
    module = new_task(small()).module
    assert isinstance(module, EdmDiffusion)
    x = torch.ones(1, 1, 8, 8)
    denoised = module.denoise(x, torch.tensor([0.75], dtype=torch.float64), None)
    torch.testing.assert_close(denoised, 0.5 * x)  # c_skip alone
