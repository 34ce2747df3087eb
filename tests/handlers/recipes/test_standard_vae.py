"""Variational autoencoders with a standard normal prior: bounds on closed forms, noise by address, and a likelihood."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fount.address import Addresses, Stream
from handlers.family import Deadline, DeadlinePassed, Draw, Noise
from handlers.models import load_family
from handlers.models.standard_vae import LogWeight, StandardVae, bounds, log_normal

CONFIG: dict[str, Any] = {"height": 2, "width": 2, "channels": 1, "latent_dim": 2, "hidden": [8]}
LOADINGS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]], dtype=torch.float64)  # orthogonal: q is diagonal
NOISE_VARIANCE = 0.5
POSTERIOR_VARIANCE = 1 / (1 + (LOADINGS**2).sum(dim=0) / NOISE_VARIANCE)
X = torch.tensor([[0.3, -1.0, 0.8], [2.0, 0.5, -0.1]], dtype=torch.float64)


def linear_bounds(rows: Tensor, samples: int, *, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Bound log p(x) of x = Wz + noise, with the exact posterior or one that is shifted and scaled."""
    mean = rows @ LOADINGS * POSTERIOR_VARIANCE / NOISE_VARIANCE + shift
    variance = (POSTERIOR_VARIANCE * scale**2).expand_as(mean)
    generator, weights = torch.Generator().manual_seed(0), []
    for _ in range(samples):
        z = mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        weight = LogWeight(
            likelihood=log_normal(rows, z @ LOADINGS.T, torch.full_like(rows, math.log(NOISE_VARIANCE))),
            prior=log_normal(z, torch.zeros_like(z), torch.zeros_like(z)),
            posterior=log_normal(z, mean, variance.log()),
        )
        weights.append(weight.value)
    return bounds(weights)


def exact(rows: Tensor) -> Tensor:
    covariance = LOADINGS @ LOADINGS.T + NOISE_VARIANCE * torch.eye(3, dtype=torch.float64)
    return torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(rows)


def random_vae() -> StandardVae:
    torch.manual_seed(0)
    module = StandardVae.from_config(CONFIG).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)  # a posterior that is neither the prior nor exact
    return module


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def score(rows: Tensor, start: int = 0, samples: int | None = None, deadline: Deadline | None = None) -> Tensor:
    noise = Noise(addresses=Addresses.of_range(3, start, len(rows)), device=torch.device("cpu"))
    return random_vae().score(rows, None, noise, Draw(importance_samples=samples), deadline or Deadline())


# --- Closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 2, 7, 50])
def test_both_bounds_are_log_p_of_a_linear_gaussian_model_with_its_exact_posterior(samples: int) -> None:
    torch.testing.assert_close(linear_bounds(X, samples), exact(X)[:, None].expand(2, 2), rtol=0, atol=1e-12)


def test_bounds_with_another_posterior_rise_with_the_samples_and_stay_below_log_p() -> None:
    rows = X[:1].expand(4000, 3)
    means = [float(linear_bounds(rows, k, shift=0.3, scale=1.3)[:, 1].mean()) for k in (1, 2, 5, 20, 100)]
    assert means == sorted(means)
    assert float(exact(X)[0]) - means[0] > 0.3
    assert 0 < float(exact(X)[0]) - means[-1] < 0.02


def test_the_lower_bound_is_short_of_log_p_by_the_divergence_of_the_posterior() -> None:
    bound = linear_bounds(X[:1].expand(4000, 3), 50, shift=0.3, scale=1.3)[:, 0].mean()
    # KL(N(m + 0.3, 1.69 v), N(m, v)) = ½ Σ (1.69 + 0.09 / v - 1 - ln 1.69), v = 1/5 and 1/9
    assert float(exact(X)[0] - bound) == pytest.approx(0.5 * (2 * (0.69 - math.log(1.69)) + 0.45 + 0.81), abs=0.02)


def test_log_q_less_log_p_averages_to_the_divergence_from_the_prior() -> None:
    mean, logvar = torch.tensor([[0.5, -1.0]]).expand(100_000, 2), torch.tensor([[-1.0, 0.4]]).expand(100_000, 2)
    z = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    found = (log_normal(z, mean, logvar) - log_normal(z, torch.zeros_like(z), torch.zeros_like(z))).mean()
    expected = 0.5 * (0.25 + math.exp(-1) - 1 + 1 + 1 + math.exp(0.4) - 1 - 0.4)
    assert float(found) == pytest.approx(expected, abs=0.02)


def test_bounds_of_given_weights_are_the_mean_log_and_the_log_of_the_mean() -> None:
    log_weights = [torch.tensor([-2000.0], dtype=torch.float64), torch.tensor([-2000.0 + math.log(3)]).double()]
    found = bounds(log_weights)[0]
    assert found.tolist() == pytest.approx([-2000 + 0.5 * math.log(3), -2000 + math.log(2)], abs=1e-3)


# --- Scores of pictures -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_the_weighted_bound_of_many_samples_is_log_p_of_every_picture_and_these_sum_to_1() -> None:
    pictures = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).reshape(16, 1, 2, 2)
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    prior = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).exp() * 0.05**2
    logits = random_vae().logits(z.float()).flatten(1).double()
    likelihood = torch.distributions.Bernoulli(logits=logits[:, None]).log_prob(pictures.flatten(1).double()).sum(2)
    probabilities = (prior[:, None] * likelihood.exp()).sum(dim=0)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-6)
    weighted = score(pictures, samples=1000)[:, 1]
    torch.testing.assert_close(weighted, probabilities.log(), rtol=0, atol=0.15)  # random, by 1/√samples


def test_bounds_of_one_sample_are_equal() -> None:
    found = score(images(5), samples=1)
    assert torch.equal(found[:, 0], found[:, 1])


def test_a_score_without_importance_samples_draws_one() -> None:
    assert torch.equal(score(images(5)), score(images(5), samples=1))


def test_the_weighted_bound_is_above_the_lower_bound_and_depends_on_the_samples() -> None:
    found = score(images(5), samples=20)
    assert bool((found[:, 1] > found[:, 0]).all())
    assert not torch.equal(found[:, 1], score(images(5), samples=19)[:, 1])


def test_a_row_has_the_same_score_alone_and_in_company() -> None:
    rows = images(6)
    together, alone = score(rows, samples=4), torch.cat([score(rows[k : k + 1], k, samples=4) for k in range(6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)  # kernels of one row may round differently
    assert not torch.allclose(score(rows, start=1, samples=4), together)


def test_grey_pixels_are_scored_as_black_or_white() -> None:
    grey, binary = torch.tensor([0.5, 0.49, 0.9, 0.1]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert torch.equal(score(grey.reshape(1, 1, 2, 2)), score(binary.reshape(1, 1, 2, 2)))


def test_a_score_stops_at_its_deadline() -> None:
    with pytest.raises(DeadlinePassed):
        score(images(2), samples=5000, deadline=Deadline(unix_s=1.0))


# --- Samples, codes and configuration ---------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_sample_is_the_decoded_normal_of_its_address() -> None:
    noise, module = Noise(addresses=Addresses.of_range(3, 0, 4), device=torch.device("cpu")), random_vae()
    z = torch.from_numpy(Addresses.of_range(3, 0, 4).normals(Stream.LATENT, 2))
    assert torch.equal(module.sample(noise, None, Draw(), Deadline()), module.decode(z, None))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden": []}, "hidden is"),
        ({"hidden": [8, 0]}, "hidden has 0"),
        ({"latent_dim": 0}, "latent_dim has 0"),
        ({"components": 2}, "components"),
    ],
    ids=["no layers", "an empty layer", "no latent", "an unknown key"],
)
def test_a_wrong_configuration_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load_family("standard-vae", {**CONFIG, **changes})
