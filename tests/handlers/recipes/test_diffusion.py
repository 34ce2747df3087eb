"""Diffusion: with the exact D of a normal law, samples and scores are those of the law, and of one row alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fount.address import Addresses, Stream
from handlers.family import Deadline, Draw, Given, Noise
from handlers.models.diffusion import DiffusionConfig, EdmDiffusion
from handlers.stepping import take_steps

SMALL: dict[str, Any] = {
    "height": 4, "width": 4, "channels": 1, "classes": 3, "features": [8, 8], "sigma_data": 0.5, "sigma_min": 0.01,
}  # fmt: skip
NORMAL: dict[str, Any] = {
    "height": 2, "width": 2, "channels": 1, "classes": 0, "features": [8], "levels": 4096, "sigma_min": 0.002,
}  # fmt: skip
MEAN = torch.tensor([0.1, -0.2, 0.0, 0.3], dtype=torch.float64)
FACTOR = torch.tensor(
    [[0.15, 0.0, 0.0, 0.0], [0.1, 0.1, 0.0, 0.0], [-0.05, 0.08, 0.12, 0.0], [0.02, -0.1, 0.06, 0.05]],
    dtype=torch.float64,
)
COVARIANCE = FACTOR @ FACTOR.T


class ExactNormal(EdmDiffusion):
    """The diffusion of N(mean, covariance), in closed form."""

    mean, covariance = MEAN, COVARIANCE

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        noisy = self.covariance + sigma**2 * torch.eye(4, dtype=torch.float64)
        shrink = self.covariance @ torch.linalg.inv(noisy)
        centred = x.double().flatten(1) - self.mean
        return (self.mean + centred @ shrink.T).view(x.shape).float()


class StandardNormal(ExactNormal):
    """The diffusion of N(0, 1)."""

    mean, covariance = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)


def noise(count: int, start: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(5, start, count), device=torch.device("cpu"))


def ends(module: EdmDiffusion, count: int, draw: Draw) -> Tensor:
    """(count, pixels) float64: the pictures after the last step, not clamped."""
    steps = range(module.steps(draw))
    return take_steps(module, None, steps, noise(count), None, draw, Deadline())[:, 0].flatten(1).double()


def network(seed: int = 0) -> EdmDiffusion:
    """A network whose last layers are not zero."""
    module, generator = EdmDiffusion.from_config(SMALL), torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.2, generator=generator)
    return module.eval().requires_grad_(False)


def labels(count: int) -> Tensor:
    return torch.arange(count) % 3


def sample(module: EdmDiffusion, count: int, draw: Draw, start: int = 0) -> Tensor:
    return module.sample(noise(count, start), labels(count + start)[start:], draw, Deadline())


def heun_error(steps: int) -> float:
    """The largest error of Heun's method for the exact end of the differential equation."""
    module = ExactNormal.from_config(NORMAL)
    values, vectors = torch.linalg.eigh(COVARIANCE)
    start = 80 * noise(64).normal(Stream.LATENT, (4,)).double() - MEAN
    exact = MEAN + (start @ vectors) * (values / (values + 80**2)).sqrt() @ vectors.T
    return float((ends(module, 64, Draw(steps=steps)) - exact).abs().max())


def test_heun_reaches_the_end_of_the_differential_equation() -> None:
    assert heun_error(80) < 0.005


def test_heun_is_of_second_order() -> None:
    assert 3 < heun_error(40) / heun_error(80) < 6


def test_ddim_of_a_standard_normal_multiplies_by_cosines() -> None:
    module, draw = StandardNormal.from_config(NORMAL), Draw(steps=10, eta=0.0)
    angles = torch.tensor([math.atan(sigma) for sigma in module.config.sigmas(10)], dtype=torch.float64)
    factor = (angles[:-1] - angles[1:]).cos().prod()  # of x/√(1 + σ²)
    start = 80 * noise(8).normal(Stream.LATENT, (4,)).double() / math.sqrt(1 + 80**2)
    torch.testing.assert_close(ends(module, 8, draw), start * factor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("eta", "steps", "variance"), [(1.0, 64, 0.845), (1.0, 256, 0.958), (0.5, 64, 0.904)])
def test_ddpm_approaches_the_variance_of_a_standard_normal(eta: float, steps: int, variance: float) -> None:
    drawn = ends(StandardNormal.from_config(NORMAL), 1000, Draw(steps=steps, eta=eta))
    assert float(drawn.var()) == pytest.approx(variance, abs=0.05)


def test_fresh_noise_is_read_by_eta() -> None:
    module = network()
    drawn = [sample(module, 4, Draw(steps=4, eta=eta)) for eta in (None, 0.0, 0.5, 1.0)]
    assert len({each.numpy().tobytes() for each in drawn}) == 4


@pytest.fixture(scope="module")
def scored() -> tuple[Tensor, Tensor]:
    """Rows of the normal law, rounded to levels, and their exact log-probabilities in nats."""
    x = MEAN + noise(100, start=500).normal(Stream.LATENT, (4,)).double() @ FACTOR.T
    x = (x + 1).mul(4095 / 2).round() * 2 / 4095 - 1
    law = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
    return x.view(-1, 1, 2, 2).float(), law.log_prob(x) + 4 * math.log(2 / 4095)


def score_normal(rows: Tensor, **parameters: int) -> Tensor:
    module = ExactNormal.from_config(NORMAL)
    return module.score(rows, None, noise(len(rows)), Draw(**parameters), Deadline())


@pytest.mark.parametrize(("steps", "error"), [(18, 0.7), (40, 0.35)])
def test_the_likelihood_is_close_to_the_law(scored: tuple[Tensor, Tensor], steps: int, error: float) -> None:
    rows, exact = scored
    estimates = score_normal(rows, steps=steps, importance_samples=4)[:, 1]
    assert float((estimates - exact).mean()) == pytest.approx(0, abs=error)


def test_the_standard_error_covers_the_likelihood(scored: tuple[Tensor, Tensor]) -> None:
    rows, exact = scored
    found = score_normal(rows, steps=40, importance_samples=4)
    assert 0.7 < float((found[:, 1] - exact).std() / found[:, 2].square().mean().sqrt()) < 1.4


def test_the_bound_is_below_the_law_and_rises_with_steps(scored: tuple[Tensor, Tensor]) -> None:
    rows, exact = scored
    few, many = (float(score_normal(rows, steps=steps)[:, 0].mean()) for steps in (18, 100))
    assert few < many < float(exact.mean()) < many + 4


def test_more_samples_lower_the_standard_error(scored: tuple[Tensor, Tensor]) -> None:
    rows, _ = scored
    few, many = (score_normal(rows, importance_samples=samples)[:, 2].mean() for samples in (2, 16))
    assert many < few / 2


def test_a_score_does_not_depend_on_other_rows() -> None:
    module, images = network(), noise(8).normal(Stream.LATENT, (1, 4, 4)).clamp(-1, 1)
    every = module.score(images, labels(8), noise(8), Draw(steps=3), Deadline())
    part = module.score(images[4:], labels(8)[4:], noise(4, start=4), Draw(steps=3), Deadline())
    assert torch.equal(every[4:], part)


def test_scores_without_labels_are_of_no_class() -> None:
    module, images = network(), torch.zeros(4, 1, 4, 4)
    none = module.score(images, None, noise(4), Draw(steps=2), Deadline())
    assert torch.equal(none, module.score(images, torch.full((4,), 3), noise(4), Draw(steps=2), Deadline()))
    assert not torch.equal(none, module.score(images, labels(4), noise(4), Draw(steps=2), Deadline()))


def test_scores_are_the_same_in_inference_mode() -> None:
    module, images = network(), torch.zeros(4, 1, 4, 4)
    outside = module.score(images, labels(4), noise(4), Draw(steps=2), Deadline())
    with torch.inference_mode():
        inside = module.score(images.clone(), labels(4), noise(4), Draw(steps=2), Deadline())
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("eta", [None, 0.0, 1.0])
def test_a_draw_cut_after_any_step_is_the_same(eta: float | None) -> None:
    module, draw = network(), Draw(steps=4, eta=eta, guidance_scale=2.0)
    state = None
    for step in range(4):
        state = take_steps(module, state, range(step, step + 1), noise(4), labels(4), draw, Deadline())
        state = torch.from_numpy(state.numpy().astype(np.float32).copy())
    assert state is not None
    assert torch.equal(module.finish(state), sample(module, 4, draw))


def test_a_row_does_not_depend_on_its_batch() -> None:
    module = network()
    every = sample(module, 16, Draw(steps=3))
    assert torch.equal(every[6:8], sample(module, 2, Draw(steps=3), start=6))


def test_guidance_of_one_changes_no_byte() -> None:
    module = network()
    plain = sample(module, 4, Draw(steps=3))
    assert torch.equal(plain, sample(module, 4, Draw(steps=3, guidance_scale=1.0)))
    assert not torch.equal(plain, sample(module, 4, Draw(steps=3, guidance_scale=3.0)))


def test_guidance_of_zero_ignores_the_class() -> None:
    module, draw = network(), Draw(steps=3, guidance_scale=0.0)
    without = module.sample(noise(4), None, Draw(steps=3), Deadline())
    torch.testing.assert_close(sample(module, 4, draw), without)


def test_nothing_is_removed_without_noise() -> None:
    x = noise(4).normal(Stream.LATENT, (1, 4, 4))
    denoised = network().denoise(x, torch.tensor([1e-9], dtype=torch.float64), labels(4))
    torch.testing.assert_close(denoised, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("eta", [None, 0.0, 1.0])
def test_known_pixels_are_kept_exactly(eta: float | None) -> None:
    module, draw = network(), Draw(steps=3, eta=eta)
    mask = torch.zeros(4, 1, 4, 4)
    mask[:, :, :2] = 1
    given = Given(values=torch.full((4, 1, 4, 4), 0.3), mask=mask)
    state = module.begin_given(given, noise(4), labels(4), draw)
    drawn = module.finish(take_steps(module, state, range(3), noise(4), labels(4), draw, Deadline()))
    assert torch.equal(drawn[:, :, :2], given.values[:, :, :2])
    assert not torch.equal(drawn, sample(module, 4, draw))


def test_no_known_pixels_change_nothing() -> None:
    module, given = network(), Given(values=torch.ones(4, 1, 4, 4), mask=torch.zeros(4, 1, 4, 4))
    state = module.begin_given(given, noise(4), labels(4), Draw())
    assert state.numpy().tobytes() == module.begin(noise(4), labels(4), Draw()).numpy().tobytes()


def test_draws_without_known_pixels_make_noise_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, normal = [], Noise.normal

    def count(self: Noise, stream: Stream, *arguments: Any, **keywords: Any) -> Tensor:
        made.append(stream)
        return normal(self, stream, *arguments, **keywords)

    monkeypatch.setattr(Noise, "normal", count)
    sample(network(), 4, Draw(steps=3))
    assert made == [Stream.LATENT]


def test_known_pixels_steer_the_others() -> None:
    module, steps = ExactNormal.from_config(NORMAL), Draw(steps=40)
    mask = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2).expand(500, -1, -1, -1)
    given = Given(values=torch.full((500, 1, 2, 2), 0.4), mask=mask)
    state = module.begin_given(given, noise(500), None, steps)
    drawn = take_steps(module, state, range(40), noise(500), None, steps, Deadline())[:, 0].flatten(1)
    assert float(drawn[:, 1].mean()) > float(MEAN[1]) + 0.1  # 0.2 above it, were the known pixel conditioned on exactly


def test_noise_levels_fall_from_the_largest_to_none() -> None:
    sigmas = DiffusionConfig.read(SMALL).sigmas(18)
    assert sigmas == tuple(sorted(sigmas, reverse=True))
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == (pytest.approx(80), pytest.approx(0.01), 0.0)


@pytest.mark.parametrize("steps", [0, 257])
def test_it_refuses_a_number_of_steps(steps: int) -> None:
    with pytest.raises(ValueError, match="must be in 1 to 256"):
        network().steps(Draw(steps=steps))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "depth"),
        ({"classes": -1}, "classes is -1"),
        ({"levels": 1}, "levels is 1"),
        ({"features": [12]}, "multiples of 8"),
        ({"features": 8}, "features is 8"),
        ({"features": [8, 8, 8, 8]}, "divisible"),
        ({"sigma_data": 0}, "sigma_data is 0"),
        ({"sigma_min": 90.0}, "must be below sigma_max"),
    ],
    ids=str,
)
def test_it_names_what_is_wrong_in_its_configuration(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EdmDiffusion.from_config({**SMALL, **change})
