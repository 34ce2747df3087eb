"""Diffusion from a given picture: with the exact D of a normal law, its posterior; and answers that are consistent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fount.address import Addresses
from handlers.family import Deadline, Draw, Given, Noise
from handlers.models.image_diffusion import ImageDiffusion
from handlers.recipes.data.reductions import reduce_images
from handlers.stepping import take_steps

LARGER: dict[str, Any] = {
    "height": 4, "width": 4, "channels": 1, "classes": 0, "features": [8, 8],
    "given": {"height": 2, "width": 2, "channels": 1},
}  # fmt: skip
COLOURED: dict[str, Any] = {**LARGER, "channels": 3, "given": {"height": 4, "width": 4, "channels": 1}}
NORMAL: dict[str, Any] = {
    "height": 2, "width": 2, "channels": 1, "classes": 0, "features": [8],
    "given": {"height": 1, "width": 1, "channels": 1},
}  # fmt: skip
MEAN = torch.tensor([0.1, -0.2, 0.0, 0.3], dtype=torch.float64)
FACTOR = torch.tensor(
    [[0.15, 0.0, 0.0, 0.0], [0.1, 0.1, 0.0, 0.0], [-0.05, 0.08, 0.12, 0.0], [0.02, -0.1, 0.06, 0.05]],
    dtype=torch.float64,
)
COVARIANCE = FACTOR @ FACTOR.T
AVERAGE = torch.full((1, 4), 0.25, dtype=torch.float64)
GAIN = COVARIANCE @ AVERAGE.T / (AVERAGE @ COVARIANCE @ AVERAGE.T)
POSTERIOR = COVARIANCE - GAIN @ AVERAGE @ COVARIANCE
"""Of a picture of 2×2 pixels whose mean is given: the covariance of what is left to draw."""


class ExactPair(ImageDiffusion):
    """The diffusion of N(mean, covariance) given the mean of the pixels, in closed form."""

    def denoise(self, x: Tensor, enlarged: Tensor, sigma: Tensor) -> Tensor:
        shrink = POSTERIOR @ torch.linalg.inv(POSTERIOR + sigma**2 * torch.eye(4, dtype=torch.float64))
        mean = posterior_mean(enlarged.double().flatten(1)[:, :1])
        return (mean + (x.double().flatten(1) - mean) @ shrink.T).view(x.shape).float()


def posterior_mean(given: Tensor) -> Tensor:
    """(B, 1) to (B, 4)."""
    return MEAN + (given - MEAN.mean()) @ GAIN.T


def noise(count: int, start: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(5, start, count), device=torch.device("cpu"))


def network(config: dict[str, Any]) -> ImageDiffusion:
    torch.manual_seed(0)
    module = ImageDiffusion.from_config(config).eval()
    for parameter in module.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape)
    return module


@torch.inference_mode()
def answer(module: ImageDiffusion, given: Tensor, start: int = 0, steps: int = 4) -> Tensor:
    state = module.begin_given(Given(values=given), noise(len(given), start), None, Draw())
    end = take_steps(module, state, range(steps), noise(len(given), start), None, Draw(steps=steps), Deadline())
    return module.finish(end)


def pictures(count: int, *shape: int) -> Tensor:
    return 2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)) - 1


def test_answers_have_the_mean_and_the_spread_of_the_posterior() -> None:
    module, given = ExactPair.from_config(NORMAL), torch.full((4000, 1, 1, 1), 0.2)
    state = module.begin_given(Given(values=given), noise(4000), None, Draw())
    end = take_steps(module, state, range(40), noise(4000), None, Draw(steps=40), Deadline())
    x = end[:, 0].flatten(1).double()
    expected = posterior_mean(torch.tensor([[0.2]], dtype=torch.float64))
    assert (x.mean(dim=0) - expected).abs().max() < 4 * float(POSTERIOR.diagonal().max().sqrt()) / 4000**0.5
    assert (torch.cov(x.T) - POSTERIOR).abs().max() < 0.1 * float(POSTERIOR.diagonal().max())
    assert (x.mean(dim=1) - 0.2).abs().max() < 1e-3  # nothing is left to draw of what is given


@pytest.mark.parametrize(("config", "shape"), [(LARGER, (1, 2, 2)), (COLOURED, (1, 4, 4))], ids=["larger", "coloured"])
def test_an_answer_is_reduced_to_the_given_picture(config: dict[str, Any], shape: tuple[int, int, int]) -> None:
    given = pictures(8, *shape)
    given[0], given[1] = 1, -1
    answers = answer(network(config), given)
    assert answers.shape == (8, config["channels"], 4, 4)
    assert (answers.min(), answers.max()) >= (-1, -1)
    assert answers.max() <= 1
    torch.testing.assert_close(reduce_images(answers, shape), given, atol=2 * 1e-3, rtol=0)


def test_a_correction_leaves_black_and_white_pixels() -> None:
    module = ImageDiffusion.from_config(LARGER)
    images = torch.full((1, 1, 4, 4), -1.0)
    images[..., 0], images[..., 1] = 1, 0.2
    given = torch.full_like(images, -1.0)
    given[..., :2] = 0.2
    finished = module.finish(torch.cat([images, given], dim=1))
    expected = torch.tensor([1.0, -0.6, -1.0, -1.0]).expand(1, 1, 4, 4)
    torch.testing.assert_close(finished, expected, atol=2e-3, rtol=0)


def test_a_black_answer_to_a_grey_pixel_is_grey() -> None:
    state = torch.cat([torch.full((1, 3, 4, 4), -1.0), torch.zeros(1, 1, 4, 4)], dim=1)
    torch.testing.assert_close(ImageDiffusion.from_config(COLOURED).finish(state), torch.zeros(1, 3, 4, 4))


def test_an_answer_depends_on_the_picture_and_the_address() -> None:
    module, given = network(LARGER), pictures(1, 1, 2, 2)
    own = answer(module, given)
    assert torch.equal(own, answer(module, given))
    assert not torch.equal(own, answer(module, given, start=1))
    assert not torch.allclose(own, answer(module, -given))


def test_more_steps_give_another_answer() -> None:
    module, given = network(LARGER), pictures(1, 1, 2, 2)
    assert not torch.equal(answer(module, given, steps=4), answer(module, given, steps=5))


@pytest.mark.parametrize("steps", [0, 257])
def test_steps_beyond_the_range_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps is {steps}, must be in 1 to 256"):
        network(LARGER).steps(Draw(steps=steps))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"classes": 3}, "classes is 3, must be 0", id="classes"),
        pytest.param({"given": None}, "given is None, must have channels, height, width", id="nothing-given"),
        pytest.param({"given": {"height": 2, "width": 2}}, "must have channels", id="no-channels"),
        pytest.param({"given": {"height": 0, "width": 2, "channels": 1}}, "whole numbers", id="zero"),
        pytest.param({"given": {"height": 3, "width": 2, "channels": 1}}, "divided by a whole number", id="no-divisor"),
        pytest.param({"given": {"height": 2, "width": 1, "channels": 1}}, "divided by a whole number", id="stretched"),
        pytest.param({"given": {"height": 4, "width": 4, "channels": 1}}, "one channel instead", id="the-same"),
        pytest.param({"channels": 3}, "as many channels", id="smaller-and-grey"),
        pytest.param({"feature": [8]}, "unknown or missing keys", id="unknown-key"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDiffusion.from_config({**LARGER, **changes})
