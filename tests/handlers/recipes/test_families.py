"""Model families: closed forms, configurations, and rows that are independent of their batch."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from fount.address import Addresses
from handlers.family import Classifier, Deadline, DeadlinePassed, Draw, Noise, Sampler
from handlers.models import load_family
from handlers.models.classifier import ConvClassifier
from handlers.models.vae import ConditionalVae, MixturePrior, Vae, kl_to_standard_normal

SHAPE = {
    "height": 8,
    "width": 8,
    "channels": 1,
    "latent_dim": 4,
    "encoder_features": 4,
    "decoder_features": 4,
    "stages": 2,
}
VAE = {**SHAPE, "components": 3}
CVAE = {**SHAPE, "classes": 10}
CLASSIFIER = {"height": 8, "width": 8, "channels": 1, "classes": 10, "features": 8, "embedding_dim": 16}


def noise(count: int, start_index: int = 0, dtype: torch.dtype = torch.float32) -> Noise:
    return Noise(addresses=Addresses.of_range(3, start_index, count), device=torch.device("cpu"), dtype=dtype)


def build(kind: type[Any], config: dict[str, int]) -> Any:
    torch.manual_seed(0)
    return kind.from_config(config).eval().requires_grad_(False)


def draw(module: Sampler, count: int, truncation: float | None = None, labels: Tensor | None = None) -> Tensor:
    return module.sample(noise(count), labels, Draw(truncation=truncation), Deadline())


# --- Closed forms -----------------------------------------------------------------------------------------------------


def test_the_divergence_from_the_prior_is_0_at_the_prior() -> None:
    assert kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)).tolist() == [0.0]


def test_the_divergence_of_a_shifted_wider_normal_is_known() -> None:
    divergence = kl_to_standard_normal(torch.tensor([[1.0]]), torch.tensor([[math.log(4.0)]]))
    assert divergence.item() == pytest.approx(2.0 - math.log(2.0), abs=1e-6)


def test_the_divergence_is_the_integral_of_the_log_ratio() -> None:
    mu, sigma = 0.7, 0.4
    z = np.linspace(mu - 12 * sigma, mu + 12 * sigma, 200_001)
    q = np.exp(-0.5 * ((z - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    integral = np.trapezoid(q * (0.5 * z**2 - 0.5 * ((z - mu) / sigma) ** 2 - math.log(sigma)), z)
    divergence = kl_to_standard_normal(torch.tensor([[mu]]), torch.tensor([[2 * math.log(sigma)]]))
    assert divergence.item() == pytest.approx(integral, abs=1e-5)


def test_the_divergence_agrees_with_torch_distributions() -> None:
    mu, logvar = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_to_standard_normal(mu, logvar), expected)


def test_a_mixture_of_one_standard_normal_has_its_density() -> None:
    prior, z = MixturePrior(1, 3), torch.randn(5, 3)
    nn.init.zeros_(prior.means)
    nn.init.zeros_(prior.log_scales)
    torch.testing.assert_close(prior.log_density(z), Normal(0.0, 1.0).log_prob(z).sum(dim=1))


def test_the_density_of_a_mixture_is_the_mean_of_its_parts() -> None:
    prior, z = MixturePrior(4, 1), torch.randn(5, 1)
    parts = Normal(prior.means[:, 0], prior.log_scales[:, 0].exp()).log_prob(z)
    torch.testing.assert_close(prior.log_density(z), parts.exp().mean(dim=1).log())


def test_the_estimated_divergence_from_the_posterior_itself_is_0() -> None:
    module = build(Vae, {**VAE, "components": 1})
    mu, logvar, epsilon = module.prior.means, 2 * module.prior.log_scales, torch.randn(1, 4)
    torch.testing.assert_close(module.divergence(mu, logvar, epsilon), torch.zeros(1), atol=1e-5, rtol=0)


def test_the_components_of_a_mixture_are_drawn_equally_often() -> None:
    module = build(Vae, {**VAE, "latent_dim": 1})
    module.prior.means.copy_(torch.tensor([[0.0], [100.0], [200.0]]))
    z = module.draw_latents(noise(3000), None)
    counts = torch.bincount((z[:, 0] / 100).round().long())
    assert counts.tolist() == pytest.approx([1000, 1000, 1000], abs=100)


def test_the_reconstruction_is_the_log_density_of_a_normal() -> None:
    module = build(Vae, VAE)
    module.log_sigma.fill_(math.log(0.3))
    images, epsilon = torch.rand(2, 1, 8, 8), torch.zeros(2, 4)
    mean = module.decode(module.encode(images, None)[0], None)
    expected = -Normal(mean, 0.3).log_prob(images).flatten(1).sum(dim=1).mean()
    torch.testing.assert_close(module.elbo(images, None, epsilon).reconstruction, expected)


def test_a_bernoulli_reconstruction_is_the_log_probability_of_the_pixels() -> None:
    module = build(Vae, {**VAE, "likelihood": "bernoulli"})
    images, epsilon = torch.randint(2, (2, 1, 8, 8)).float(), torch.zeros(2, 4)
    mean = module.decode(module.encode(images, None)[0], None)
    expected = -Bernoulli(mean).log_prob(images).flatten(1).sum(dim=1).mean()
    torch.testing.assert_close(module.elbo(images, None, epsilon).reconstruction, expected)


def test_hidden_layers_are_on_both_sides_of_the_latent() -> None:
    plain, deep = build(Vae, VAE).state_dict(), build(Vae, {**VAE, "hidden": 5}).state_dict()
    assert {name for name in deep if 5 in deep[name].shape} == {
        "decoder_input.0.weight", "decoder_input.0.bias", "decoder_input.2.weight", "decoder_input.2.bias",
        "decoder_input.4.weight", "encoder.7.0.weight", "encoder.7.0.bias", "encoder.7.2.weight",
    }  # fmt: skip
    assert "decoder_input.weight" in plain


# --- Configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        pytest.param(
            "gan",
            {},
            "family 'gan' is unknown; known families: vae, conditional-vae, ",
            id="family",
        ),
        pytest.param(
            "vae", CVAE, r"unknown or missing keys \['classes', 'components'\]", id="classes of an unconditional model"
        ),
        pytest.param("conditional-vae", SHAPE, r"unknown or missing keys \['classes'\]", id="no classes"),
        pytest.param("vae", {**VAE, "stages": 0}, "stages is 0, must be a whole number of 1 or more", id="no stage"),
        pytest.param(
            "vae", {**VAE, "likelihood": "poisson"}, "'poisson', must be normal or bernoulli", id="likelihood"
        ),
        pytest.param("vae", {**VAE, "hidden": 0}, "hidden is 0, must be a whole number of 1 or more", id="hidden"),
        pytest.param("vae", {**VAE, "height": 6}, r"height is 6, must be divisible by 2\^stages", id="an odd height"),
        pytest.param("vae", {**VAE, "width": 8.0}, "width is 8.0, must be a whole number", id="a float"),
        pytest.param("classifier", {**CLASSIFIER, "depth": 3}, r"missing keys \['depth'\]; it takes", id="a new key"),
        pytest.param("classifier", {**CLASSIFIER, "features": 6}, "features is 6, must be divisible by 4", id="groups"),
        pytest.param("classifier", {**CLASSIFIER, "classes": 1}, "classes is 1, must be 2 or more", id="one class"),
    ],
)
def test_a_wrong_configuration_names_the_key(family: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_family(family, config)


@pytest.mark.parametrize(
    ("family", "config", "protocol"),
    [("vae", VAE, Sampler), ("conditional-vae", CVAE, Sampler), ("classifier", CLASSIFIER, Classifier)],
    ids=["vae", "conditional-vae", "classifier"],
)
def test_a_family_is_built_by_name(family: str, config: dict[str, Any], protocol: type) -> None:
    assert isinstance(load_family(family, config), protocol)


def test_importing_the_names_of_families_loads_no_torch() -> None:
    code = "import sys, handlers.cards.card, handlers.models; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("config", "shape"),
    [(CVAE, (5, 1, 8, 8)), ({**CVAE, "height": 12, "width": 20, "channels": 3, "stages": 2}, (5, 3, 12, 20))],
    ids=["digits", "other sizes"],
)
def test_samples_have_the_shape_and_range_of_the_card(
    config: dict[str, int], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    module = build(ConditionalVae, config).to(dtype)
    images = module.sample(noise(5, dtype=dtype), torch.arange(5), Draw(), Deadline())
    assert (tuple(images.shape), images.dtype) == (shape, dtype)
    assert 0 <= images.min() <= images.max() <= 1


def test_a_sample_does_not_depend_on_its_batch() -> None:
    module, labels = build(ConditionalVae, CVAE), torch.arange(8)
    together = module.sample(noise(8), labels, Draw(), Deadline())
    alone = torch.cat([module.sample(noise(1, i), labels[i : i + 1], Draw(), Deadline()) for i in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_the_label_changes_a_sample() -> None:
    module = build(ConditionalVae, CVAE)
    zero, one = (draw(module, 1, labels=torch.tensor([label])) for label in (0, 1))
    assert not torch.equal(zero, one)


@pytest.mark.parametrize(
    ("kind", "config"), [(Vae, {**VAE, "components": 1}), (ConditionalVae, CVAE)], ids=["vae", "conditional-vae"]
)
def test_truncation_brings_samples_closer_together(kind: type[Any], config: dict[str, int]) -> None:
    module, labels = build(kind, config), torch.zeros(200, dtype=torch.int64) if "classes" in config else None
    free, bounded = draw(module, 200, labels=labels), draw(module, 200, truncation=0.5, labels=labels)
    assert bounded.std(dim=0).mean() < 0.5 * free.std(dim=0).mean()


@pytest.mark.parametrize(
    ("kind", "config", "labels", "message"),
    [
        pytest.param(Vae, VAE, torch.zeros(1, dtype=torch.int64), "0 classes takes no labels", id="too many"),
        pytest.param(ConditionalVae, CVAE, None, "10 classes takes one label for each row", id="too few"),
    ],
)
def test_labels_must_fit_the_model(
    kind: type[Vae], config: dict[str, int], labels: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(build(kind, config), 1, labels=labels)


def test_a_passed_deadline_ends_a_draw() -> None:
    with pytest.raises(DeadlinePassed):
        build(Vae, VAE).sample(noise(1), None, Draw(), Deadline(unix_s=1.0))


# --- Classes and features ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_probabilities_sum_to_1(dtype: torch.dtype) -> None:
    module = build(ConvClassifier, CLASSIFIER).to(dtype)
    probabilities = module.classify(torch.rand(3, 1, 8, 8).to(dtype))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


def test_the_last_layer_reads_the_features() -> None:
    module, images = build(ConvClassifier, CLASSIFIER), torch.rand(3, 1, 8, 8)
    expected = torch.softmax(module.head(module.embed(images)), dim=1)
    torch.testing.assert_close(module.classify(images), expected)


def test_a_class_does_not_depend_on_its_batch() -> None:
    module, images = build(ConvClassifier, CLASSIFIER), torch.rand(4, 1, 8, 8)
    alone = torch.cat([module.classify(images[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(module.classify(images), alone, atol=1e-6, rtol=0)


def test_no_family_mixes_the_rows_of_a_batch() -> None:
    modules = [build(Vae, VAE), build(ConditionalVae, CVAE), build(ConvClassifier, CLASSIFIER)]
    layers = [layer for module in modules for layer in module.modules()]
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers)
