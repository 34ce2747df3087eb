"""Families with exact densities: they integrate to 1, sample their own law, and obey Bayes' rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fount.address import Addresses
from handlers.family import Deadline, DeadlinePassed, Draw, Noise, Scorer
from handlers.models import load_family
from handlers.models.density import MixtureDensity
from handlers.models.mixture import GaussianMixture
from handlers.models.point_gan import PointGan
from handlers.recipes.data.points import LAWS

MIXTURE = {"height": 3, "width": 2, "channels": 1, "dimensions": 2, "classes": 3, "components": 2}
POINT_GAN = {"length": 2, "latent_dim": 2, "hidden": 8, "bound": 3.0}
COUNT = 100_000
CRITICAL = 1.358 / math.sqrt(COUNT)
"""The distance that a right sampler exceeds once in twenty times."""


def noise(count: int, start: int = 0, seed: int = 3) -> Noise:
    return Noise(addresses=Addresses.of_range(seed, start, count), device=torch.device("cpu"))


def score(module: Scorer, rows: Tensor, labels: Tensor | None = None) -> Tensor:
    return module.score(rows, labels, noise(len(rows)), Draw(), Deadline())


def law(name: str) -> MixtureDensity:
    return MixtureDensity.from_config(LAWS[name])


def draw_points(module: MixtureDensity | PointGan, count: int, start: int = 0) -> Tensor:
    return module.sample(noise(count, start), None, Draw(), Deadline())


def random_mixture(config: dict[str, int] = MIXTURE, seed: int = 0, spread: float = 0.15) -> GaussianMixture:
    """A mixture with random means, covariances and weights, in the middle of the range of pixels."""
    module, generator = GaussianMixture.from_config(config), torch.Generator().manual_seed(seed)
    size = config["dimensions"]
    directions = torch.randn(config["height"] * config["width"], size, generator=generator, dtype=torch.float64)
    module.basis.copy_(torch.linalg.qr(directions).Q.T)
    module.mean.fill_(0.5)
    module.noise_variance.fill_(0.01)
    module.log_weights.copy_(torch.log_softmax(torch.randn(module.log_weights.shape, generator=generator), dim=1))
    module.means.copy_(spread * torch.randn(module.means.shape, generator=generator))
    lower = 0.1 * torch.randn(module.factors.shape, generator=generator).tril()
    module.factors.copy_(lower + 0.1 * torch.eye(size))
    module.factors.diagonal(dim1=2, dim2=3).abs_()
    return module.eval()


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 3, 2, generator=torch.Generator().manual_seed(1))


# --- Points -----------------------------------------------------------------------------------------------------------


def test_the_density_on_the_line_integrates_to_1() -> None:
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    assert np.trapezoid(score(law("line"), x).exp()[:, 0], x[:, 0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("name", "points"), [("plane", 401), ("ring", 1201)])
def test_a_density_in_the_plane_integrates_to_1(name: str, points: int) -> None:
    axis = torch.linspace(-8, 8, points, dtype=torch.float64) / (2 if name == "ring" else 1)
    grid = torch.cartesian_prod(axis, axis)
    density = score(law(name), grid).exp().reshape(points, points)
    assert np.trapezoid(np.trapezoid(density, axis), axis) == pytest.approx(1, abs=1e-6)


def test_the_density_is_that_of_a_normal_where_there_is_one_component() -> None:
    module = MixtureDensity.from_config(
        {"low": -9, "high": 9, "weights": [1], "means": [[1, 2]], "deviations": [[0.5, 2]], "correlations": [0.3]}
    )
    points = np.array([[0.0, 0.0], [1.0, 2.0], [-1.5, 3.0]])
    expected = stats.multivariate_normal([1, 2], [[0.25, 0.3], [0.3, 4]]).logpdf(points)
    assert score(module, torch.from_numpy(points))[:, 0].numpy() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_samples_follow_the_distribution_function(name: str) -> None:
    module = law(name)
    uniforms = module.distribution(draw_points(module, COUNT))
    for axis in range(uniforms.shape[1]):
        assert stats.kstest(uniforms[:, axis], "uniform").statistic < CRITICAL


def test_the_distribution_function_is_the_integral_of_the_density() -> None:
    x = torch.linspace(-8, 1.3, 4001, dtype=torch.float64)[:, None]
    below = np.trapezoid(score(law("line"), x).exp()[:, 0], x[:, 0])
    assert law("line").distribution(x[-1:]).item() == pytest.approx(below, abs=1e-6)


def test_coordinates_of_a_sample_are_not_independent_where_the_law_is_not() -> None:
    points = draw_points(law("plane"), 20_000).numpy()
    weights, means = np.array(LAWS["plane"]["weights"]), np.array(LAWS["plane"]["means"])
    deviations, correlations = np.array(LAWS["plane"]["deviations"]), np.array(LAWS["plane"]["correlations"])
    within = weights @ (correlations * deviations.prod(axis=1))
    expected = within + weights @ means.prod(axis=1) - (weights @ means).prod()
    assert np.cov(points.T)[0, 1] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", LAWS)
def test_points_have_the_same_bytes_alone_and_in_company(name: str) -> None:
    together = draw_points(law(name), 40).numpy().tobytes()
    assert b"".join(draw_points(law(name), 1, start).numpy().tobytes() for start in range(40)) == together


def test_points_are_within_their_bounds() -> None:
    module = MixtureDensity.from_config({**LAWS["line"], "low": -1.0, "high": 1.0})
    points = draw_points(module, 1000)
    assert (points.min().item(), points.max().item()) == (-1.0, pytest.approx(1.0))


# --- Mixtures of images -----------------------------------------------------------------------------------------------


def test_the_density_of_images_integrates_to_1() -> None:
    module = random_mixture({**MIXTURE, "height": 1, "dimensions": 1})
    axis = torch.linspace(-1.5, 2.5, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)
    density = score(module, grid).exp().reshape(801, 801)
    assert np.trapezoid(np.trapezoid(density, axis), axis) == pytest.approx(1, abs=1e-6)


def test_the_density_of_images_is_that_of_normals_of_all_pixels() -> None:
    module, rows = random_mixture(), images(5)
    basis, expected = module.basis.double().numpy(), np.zeros(5)
    outside = 0.01 * (np.eye(6) - basis.T @ basis)
    for k in range(2):
        factor = module.factors[1, k].double().numpy()
        mean = 0.5 + module.means[1, k].double().numpy() @ basis
        normal = stats.multivariate_normal(mean, basis.T @ factor @ factor.T @ basis + outside)
        expected += module.log_weights[1, k].exp().item() * normal.pdf(rows.flatten(1).numpy())
    found = score(module, rows, torch.full((5,), 1))[:, 0]
    assert found.numpy() == pytest.approx(np.log(expected), abs=1e-4)


def test_log_p_of_x_is_the_logsumexp_over_equally_likely_classes() -> None:
    module, rows = random_mixture(), images(7)
    by_class = torch.cat([score(module, rows, torch.full((7,), y)) for y in range(3)], dim=1)
    expected = torch.logsumexp(by_class, dim=1) - math.log(3)
    torch.testing.assert_close(score(module, rows)[:, 0], expected, atol=1e-9, rtol=0)


def test_the_posterior_is_the_softmax_of_the_joint_density() -> None:
    module, rows = random_mixture(), images(7)
    joint = torch.cat([score(module, rows, torch.full((7,), y)) for y in range(3)], dim=1) - math.log(3)
    torch.testing.assert_close(module.classify(rows), torch.softmax(joint, dim=1))
    torch.testing.assert_close(module.classify(rows).log(), joint - score(module, rows), atol=1e-9, rtol=0)


def test_k_means_is_the_limit_of_vanishing_covariances() -> None:
    module, rows = random_mixture({**MIXTURE, "components": 1}), images(50)
    module.factors.copy_(1e-3 * torch.eye(2).expand_as(module.factors))
    centres = module.means[:, 0].double()
    nearest = torch.cdist(module.embed(rows), centres).argmin(dim=1)
    expected = torch.nn.functional.one_hot(nearest, 3).double()
    torch.testing.assert_close(module.classify(rows), expected, atol=1e-9, rtol=0)


def test_images_are_the_means_at_the_drawn_coordinates() -> None:
    module, labels = random_mixture(spread=0.05), torch.arange(300) % 3
    module.factors.mul_(0.1)  # so that no pixel is bounded
    drawn = module.sample(noise(300), labels, Draw(), Deadline())
    back = module.place(module.embed(drawn))
    torch.testing.assert_close(back, drawn, atol=1e-5, rtol=0)


def test_components_are_drawn_as_often_as_their_weights() -> None:
    module = random_mixture()
    module.means.zero_()
    module.means[:, 1] = 0.2
    module.factors.mul_(0.01)
    drawn = module.embed(module.sample(noise(20_000), torch.full((20_000,), 2), Draw(), Deadline()))
    share = (drawn[:, 0] > 0.1).double().mean().item()
    assert share == pytest.approx(module.log_weights[2, 1].exp().item(), abs=0.02)


def test_images_have_the_same_bytes_alone_and_in_company() -> None:
    module, labels = random_mixture(), torch.arange(40) % 3
    together = module.sample(noise(40), labels, Draw(), Deadline()).numpy().tobytes()
    alone = [module.sample(noise(1, i), labels[i : i + 1], Draw(), Deadline()).numpy().tobytes() for i in range(40)]
    assert b"".join(alone) == together


def test_truncation_keeps_coordinates_near_the_means() -> None:
    module, labels = random_mixture({**MIXTURE, "components": 1}), torch.zeros(500, dtype=torch.int64)
    wide = module.embed(module.sample(noise(500), labels, Draw(), Deadline())).std(dim=0)
    narrow = module.embed(module.sample(noise(500), labels, Draw(truncation=0.5), Deadline())).std(dim=0)
    assert (narrow < 0.5 * wide).all()


def test_a_mixture_takes_a_label_for_each_sample() -> None:
    with pytest.raises(ValueError, match="a model of 3 classes takes one label for each row"):
        random_mixture().sample(noise(2), None, Draw(), Deadline())


@pytest.mark.parametrize("name", ["gaussian-mixture", "mixture-density"])
def test_a_score_stops_at_its_deadline(name: str) -> None:
    module = load_family(name, MIXTURE if name == "gaussian-mixture" else LAWS["plane"])
    assert isinstance(module, Scorer)
    rows = images(2) if name == "gaussian-mixture" else torch.zeros(2, 2)
    with pytest.raises(DeadlinePassed):
        module.score(rows, None, noise(2), Draw(), Deadline(unix_s=0.0))


# --- Configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("gaussian-mixture", {**MIXTURE, "depth": 1}, r"unknown or missing keys \['depth'\]"),
        ("gaussian-mixture", {**MIXTURE, "components": 0}, "components is 0, must be a whole number of 1 or more"),
        ("gaussian-mixture", {**MIXTURE, "dimensions": 6}, "dimensions is 6, must be below the 6 values of an image"),
        ("mixture-density", {"low": 0}, r"missing keys \['deviations', 'high', 'means', 'weights'\]"),
        ("mixture-density", {**LAWS["line"], "low": 9.0}, "low is 9.0, must be a number below high"),
        ("mixture-density", {**LAWS["line"], "weights": [0.3, 0.3, 0.3]}, "weights is .*, must be numbers above 0"),
        ("mixture-density", {**LAWS["line"], "means": [[0.0], [1.0]]}, "means is .*, must be 3 lists of one or two"),
        ("mixture-density", {**LAWS["line"], "deviations": [[1], [0], [1]]}, "deviations is .* 3 lists of 1 numbers"),
        ("mixture-density", {**LAWS["line"], "correlations": [0.1]}, "correlations is .*, must be left out"),
        ("mixture-density", {**LAWS["plane"], "correlations": [0.1, 1.0, 0.0]}, "must be 3 numbers between -1 and 1"),
        ("point-gan", {**POINT_GAN, "length": 3}, "length is 3, must be 1 or 2"),
        ("point-gan", {**POINT_GAN, "hidden": 0.5}, "hidden is 0.5, must be a whole number of 1 or more"),
        ("point-gan", {**POINT_GAN, "bound": -1}, "bound is -1, must be a number above 0"),
        ("point-gan", {"length": 2}, r"missing keys \['bound', 'hidden', 'latent_dim'\]"),
    ],
)
def test_a_wrong_configuration_names_its_key(family: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_family(family, config)


def test_all_wrong_keys_of_a_density_are_named() -> None:
    config = {**LAWS["plane"], "high": -9, "deviations": 1, "correlations": 2}
    with pytest.raises(ValueError, match=r"low is .*; deviations is 1, .*; correlations is 2, "):
        MixtureDensity.from_config(config)


# --- Adversarial points -----------------------------------------------------------------------------------------------


def test_generated_points_are_within_their_bound() -> None:
    module = PointGan.from_config(POINT_GAN).requires_grad_(False)
    module.layers[-1].bias.fill_(100.0)
    assert draw_points(module, 3).tolist() == [[3.0, 3.0]] * 3


def test_generated_points_are_a_function_of_z() -> None:
    torch.manual_seed(0)
    module = PointGan.from_config(POINT_GAN).requires_grad_(False)
    assert len(draw_points(module, 10).unique(dim=0)) == 10
    torch.testing.assert_close(draw_points(module, 1, start=9), draw_points(module, 10)[9:])
