"""Training tasks: seeds and resumed states reproduce weights, and every option of a fit has an effect."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from handlers.recipes.catalogue import RECIPES, GanFit
from handlers.recipes.data.augmentations import RandomAffine, ShiftAndNoise, translate
from handlers.recipes.data.load import TrainingData
from handlers.recipes.quality.metrics import train_classifier
from handlers.recipes.tasks.gans import rate_share
from handlers.recipes.tasks.task import average_into
from tests.handlers.training_toys import DIGITS, advance, are_equal, new_task, refit, small

# --- Resuming and seeds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIGITS)
def test_a_resumed_task_ends_with_the_same_bits(name: str) -> None:
    recipe = small(name)
    whole = advance(new_task(recipe), 0, 12)
    half = advance(new_task(recipe), 0, 5).state()
    resumed = new_task(recipe, seed=6)
    resumed.load_state(half)
    assert are_equal(advance(resumed, 5, 12).state(), whole.state())


@pytest.mark.parametrize("name", ["digits-cvae", "digits-cgan", "digits-classifier"])
def test_a_seed_determines_the_weights(name: str) -> None:
    one, same, other = (advance(new_task(small(name), seed), 0, 3).averaged().state_dict() for seed in (5, 5, 6))
    assert are_equal(one, same)
    assert not are_equal(one, other)


def test_a_state_shares_no_memory_with_its_task() -> None:
    task = new_task(small("digits-cgan"))
    before = task.state()
    advance(task, 0, 1)
    assert not are_equal(before, task.state())


def test_the_state_of_another_network_is_refused() -> None:
    with pytest.raises((KeyError, RuntimeError)):
        new_task(small("digits-cvae")).load_state(new_task(small("digits-vae")).state())


def test_training_restores_the_state_of_torch(digits: TrainingData) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    train_classifier(RECIPES["digits-classifier"], digits, digits.train, steps=1, seed=5)
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    assert after == before


def test_a_classifier_learns(digits: TrainingData) -> None:
    recipe = RECIPES["digits-classifier"]
    trained = train_classifier(recipe, digits, digits.train, steps=100, seed=5)
    with torch.inference_mode():
        assert (trained.classify(digits.test.images).argmax(1) == digits.test.labels).float().mean() > 0.9


# --- Options ----------------------------------------------------------------------------------------------------------

OPTIONS = [
    ("digits-cgan", "batch", 8),
    ("digits-cgan", "discriminator_features", 8),
    ("digits-cgan", "projection", 12),
    ("digits-cgan", "generator_rate", 1e-3),
    ("digits-cgan", "discriminator_rate", 1e-3),
    ("digits-cgan", "betas", (0.5, 0.9)),
    ("digits-cgan", "constant_share", 0.0),
    ("digits-cgan", "last_share", 0.9),
    ("digits-cgan", "averaging", 0.9),
    ("digits-cgan", "augment_shift", 3),
    ("digits-cvae", "batch", 8),
    ("digits-cvae", "rate", 1e-3),
    ("digits-cvae", "decay", 0.5),
    ("digits-cvae", "averaging", 0.9),
    ("digits-cvae", "max_gradient_norm", 1e-3),
    ("digits-classifier", "smoothing", 0.3),
    ("digits-classifier", "augmentation", RandomAffine()),
    ("digits-classifier", "augmentation", ShiftAndNoise(shifted_share=1.0)),
    ("digits-classifier", "augmentation", ShiftAndNoise(noise=0.3)),
]


@pytest.mark.parametrize(("name", "option", "value"), OPTIONS, ids=lambda value: str(value)[:40])
def test_every_option_of_a_fit_changes_the_weights(name: str, option: str, value: object) -> None:
    plain, changed = small(name), refit(small(name), **{option: value})
    one, other = (advance(new_task(recipe, steps=3), 0, 3).averaged().state_dict() for recipe in (plain, changed))
    assert not are_equal(one, other)


def test_learning_rates_of_a_gan_are_constant_and_then_fall() -> None:
    fit = GanFit(constant_share=0.5, last_share=0.1)
    assert [rate_share(number, 100, fit) for number in (0, 50, 75, 99)] == pytest.approx([1, 1, 0.5, 0.1])


# --- Averages ---------------------------------------------------------------------------------------------------------


def test_an_average_includes_statistics_and_copies_counters() -> None:
    average, module = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    nn.init.constant_(module.weight, 3.0)
    module.running_mean, module.num_batches_tracked = torch.tensor([4.0]), torch.tensor(7)
    average_into(average, module, 0.25)
    state = {name: value.item() for name, value in average.state_dict().items()}
    assert state == {"weight": 1.5, "bias": 0, "running_mean": 1, "running_var": 1, "num_batches_tracked": 7}


# --- Augmentations ----------------------------------------------------------------------------------------------------


def dot(height: int = 9, width: int = 9) -> torch.Tensor:
    image = torch.zeros(64, 1, height, width)
    image[:, :, height // 2, width // 2] = 1
    return image


def test_a_translation_moves_whole_pixels_within_its_bounds() -> None:
    moved = translate(dot(), 2, torch.Generator().manual_seed(0), background=0.0)
    places = moved.flatten(1).argmax(1)
    rows, columns = set((places // 9 - 4).tolist()), set((places % 9 - 4).tolist())
    assert moved.sum() == 64
    assert rows == columns == {-2, -1, 0, 1, 2}


def test_a_translation_fills_with_the_background() -> None:
    moved = translate(torch.zeros(64, 1, 4, 4), 1, torch.Generator().manual_seed(0), background=-1.0)
    assert moved.unique().tolist() == [-1.0, 0.0]


def test_no_translation_draws_no_random_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert translate(dot(), 0, generator, background=0.0) is not None
    assert torch.equal(generator.get_state(), before)


def test_gradients_pass_through_a_translation() -> None:
    images = dot().requires_grad_()
    translate(images, 1, torch.Generator().manual_seed(0), background=0.0).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad[:, :, 4, 4].eq(1).all()


@pytest.mark.parametrize("option", ["rotation", "scale", "shear", "shift_px"])
def test_every_part_of_an_affine_change_has_an_effect(option: str) -> None:
    still = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift_px": 0.0}
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    kept, changed = (
        RandomAffine(**{**still, option: most}).change(images, torch.Generator().manual_seed(0)) for most in (0.0, 0.2)
    )
    torch.testing.assert_close(kept, images, atol=1e-5, rtol=0)
    assert (changed - images).abs().max() > 0.01


def test_an_affine_shift_is_in_pixels() -> None:
    still = RandomAffine(rotation=0, scale=0, shear=0, shift_px=2.0)
    moved = still.change(dot(27, 27), torch.Generator().manual_seed(0))
    rows = (moved.sum(dim=(1, 3)) * torch.arange(27)).sum(1) / moved.sum(dim=(1, 2, 3)) - 13  # centres of mass
    assert 1.5 < rows.abs().max() <= 2.0 + 1e-4
    assert math.isclose(moved.sum().item(), 64, rel_tol=1e-4)
