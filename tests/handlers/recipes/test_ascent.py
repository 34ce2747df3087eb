"""Ascent on a classifier's score: the gradient in closed form, steps of one length, and rows that do not mix."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from fount.address import Addresses, Stream
from handlers.family import Deadline, DeadlinePassed, Draw, Given, Noise
from handlers.models import load_family
from handlers.models.ascent import ClassifierAscent, ascend, score_gradient
from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.run.training import borrow_weights
from handlers.stepping import GivenStepsSampler, ManyStepSampler, take_steps
from tests.handlers.training_toys import CPU

SHAPE: dict[str, Any] = {
    "height": 8, "width": 8, "channels": 1, "classes": 3, "features": 4, "embedding_dim": 6,
}  # fmt: skip
CONFIG = SHAPE | {"step_size": 0.1}


def build(**changes: Any) -> ClassifierAscent:
    torch.manual_seed(0)
    return ClassifierAscent.from_config(CONFIG | changes).eval().requires_grad_(False)


def noise(count: int, start: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(3, start, count), device=CPU)


def draw(module: ClassifierAscent, labels: list[int], start: int = 0, steps: int | None = 4) -> Tensor:
    return module.sample(noise(len(labels), start), torch.tensor(labels), Draw(steps=steps), Deadline())


# --- The gradient -----------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_linear_classifier_is_its_row_less_the_mean_row() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, images = torch.randn(3, 16, generator=generator), torch.rand(2, 1, 4, 4, generator=generator)
    labels = torch.tensor([2, 0])
    p = torch.softmax(images.flatten(1) @ weight.T, dim=1)
    expected = weight[labels] - p @ weight  # w_y - Σ p_k w_k
    found = score_gradient(lambda x: x.flatten(1) @ weight.T, images, labels)
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-5)


def test_it_is_the_same_in_inference_mode() -> None:
    module, images, labels = build(), torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    expected = score_gradient(module, images, labels)
    with torch.inference_mode():
        assert torch.equal(score_gradient(module, images.clone(), labels.clone()), expected)


def test_a_step_has_the_given_length_and_raises_the_score() -> None:
    module, images, labels = build(), torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 1])
    after = ascend(module, images, labels, 0.1)
    torch.testing.assert_close(torch.linalg.vector_norm(after - images, dim=(1, 2, 3)), torch.tensor([0.1, 0.1]))
    before, raised = (torch.log_softmax(module(x), dim=1).gather(1, labels[:, None]) for x in (images, after))
    assert bool((raised > before).all())


def test_a_step_shrinks_where_nothing_but_rounding_is_left_to_gain() -> None:
    image, weight = torch.full((1, 1, 4, 4), 0.5), torch.zeros(2, 16)
    weight[0, 0] = 1e-3  # half of which is the gradient
    after = ascend(lambda x: x.flatten(1) @ weight.T, image, torch.tensor([0]), 1.0)
    assert float(after[0, 0, 0, 0]) == pytest.approx(0.5 + 1e-3 / 2 / 0.05, abs=1e-4)


def test_pixels_stay_in_their_range() -> None:
    after = ascend(build(), torch.ones(1, 1, 8, 8), torch.tensor([0]), 100.0)
    assert (float(after.min()), float(after.max())) == (0.0, 1.0)


def test_a_picture_without_a_gradient_stays_as_it_is() -> None:
    image = torch.rand(1, 1, 4, 4)
    assert torch.equal(ascend(lambda x: 0 * x.flatten(1)[:, :3], image, torch.tensor([0]), 1.0), image)


# --- Draws ------------------------------------------------------------------------------------------------------------


def test_it_is_a_sampler_of_many_steps_that_starts_from_given_pictures() -> None:
    module = load_family("classifier-ascent", CONFIG)
    assert isinstance(module, ManyStepSampler)
    assert isinstance(module, GivenStepsSampler)


def test_a_draw_starts_from_uniform_noise_at_its_address() -> None:
    start = build().begin(noise(2, start=5), None, Draw())
    assert torch.equal(start.flatten(1), noise(2, start=5).uniform(Stream.LATENT, 64).float())


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    together = draw(build(), [0, 1, 2, 0])
    torch.testing.assert_close(draw(build(), [2], start=2), together[2:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_draw_that_is_cut_is_the_whole_draw(cut: int) -> None:
    module, labels = build(), torch.tensor([0, 1])
    state = take_steps(module, None, range(cut), noise(2), labels, Draw(steps=4), Deadline())
    state = take_steps(module, state, range(cut, 4), noise(2), labels, Draw(steps=4), Deadline())
    assert torch.equal(module.finish(state), draw(module, [0, 1]))


def test_more_steps_are_another_picture() -> None:
    assert not torch.equal(draw(build(), [0], steps=5), draw(build(), [0]))


def test_a_draw_without_parameters_takes_fifty_steps() -> None:
    assert torch.equal(draw(build(), [0], steps=None), draw(build(), [0], steps=50))


def test_a_longer_step_is_another_picture() -> None:
    assert not torch.equal(draw(build(step_size=0.2), [0]), draw(build(), [0]))


def test_a_given_picture_is_where_a_translation_starts() -> None:
    module, image, labels = build(), torch.rand(1, 1, 8, 8), torch.tensor([1])
    found = module.translate(Given(values=image), labels, noise(1), Draw(steps=1), Deadline())
    assert torch.equal(found, ascend(module, image, labels, 0.1))


def test_pixels_that_a_mask_leaves_out_start_from_noise() -> None:
    module, mask = build(), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    start = module.begin_given(Given(values=torch.full((1, 1, 8, 8), 0.5), mask=mask), noise(1), None, Draw())
    assert bool((start[..., :4] == 0.5).all())
    assert torch.equal(start[..., 4:], module.begin(noise(1), None, Draw())[..., 4:])


def test_a_passed_deadline_ends_a_translation() -> None:
    with pytest.raises(DeadlinePassed):
        build().translate(
            Given(values=torch.rand(1, 1, 8, 8)), torch.tensor([0]), noise(1), Draw(), Deadline(unix_s=1.0)
        )


def test_a_picture_without_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes takes one label for each row"):
        build().sample(noise(1), None, Draw(), Deadline())


@pytest.mark.parametrize("steps", [0, 1001])
def test_a_wrong_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="must be in 1 to 1000"):
        draw(build(), [0], steps=steps)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG | {"depth": 3}, "depth"),
        (SHAPE, "step_size"),
        (CONFIG | {"step_size": 0.0}, "step_size is 0.0, must be a number above 0"),
        (CONFIG | {"step_size": True}, "step_size is True"),
        (CONFIG | {"features": 6}, "features is 6, must be divisible by 4"),
        (CONFIG | {"classes": 1}, "must be 2 or more"),
        (CONFIG | {"embedding_dim": 0}, "embedding_dim is 0"),
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierAscent.from_config(config)


# --- The classifier's weights -----------------------------------------------------------------------------------------


def test_it_computes_what_the_classifier_computes() -> None:
    module, classifier = build(), ConvClassifier.from_config(SHAPE)
    module.load_state_dict(classifier.state_dict())
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(module(images), classifier(images))


def test_a_recipe_borrows_the_weights_of_its_classifier(evaluator: Evaluator) -> None:
    config = {**vars(evaluator.classifier.config), "step_size": 0.5}
    recipe = dataclasses.replace(RECIPES["mnist-ascent"], config=config)
    borrowed = borrow_weights(recipe, evaluator).state_dict()
    assert all(torch.equal(borrowed[name], value) for name, value in evaluator.classifier.state_dict().items())
