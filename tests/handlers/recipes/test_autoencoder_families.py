"""Autoencoders: the principal subspace, the fitted prior, the answer of a linear denoiser, and configurations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fount.address import Addresses
from handlers.cards.card import load_card
from handlers.family import Deadline, DeadlinePassed, Decoder, Draw, Encoder, Noise, Sampler
from handlers.models import load_family
from handlers.models.autoencoder import (
    ConvAutoencoder,
    ConvDenoiser,
    DenseAutoencoder,
    LinearAutoencoder,
    NetworkAutoencoder,
    SamplingAutoencoder,
)
from handlers.recipes.catalogue import RECIPES, AutoencoderFit
from handlers.recipes.data.load import Split, load_data
from handlers.recipes.model_folder import load_module
from handlers.recipes.tasks.autoencoders import PrincipalTask, ReconstructionTask
from tests.handlers.mnist import DATA, needs_mnist
from tests.handlers.training_toys import CPU, MODEL_STORE

SHAPE = {"height": 4, "width": 4, "channels": 1}
LINEAR = {**SHAPE, "latent_dim": 3}
DENSE = {**SHAPE, "latent_dim": 3, "hidden": [8]}
CONV = {**SHAPE, "features": 4, "code_channels": 2}
KINDS = {"linear-autoencoder": LINEAR, "autoencoder": DENSE, "conv-autoencoder": CONV, "conv-denoiser": CONV}
VARIANCES = (9.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, *(0.03125,) * 8)
"""Of 16 pixels in some orthogonal basis, in thousandths; those after the third sum to 2.1875."""


def build(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    module = load_family(name, KINDS[name])
    assert isinstance(module, nn.Module)
    return module.eval().requires_grad_(False)


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def noise(count: int, start: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(3, start, count), device=CPU)


def draw(module: Sampler, count: int, **parameters: float) -> Tensor:
    return module.sample(noise(count), None, Draw(**parameters), Deadline())


def known_spectrum(count: int = 400) -> Tensor:
    """Pictures whose covariance has exactly the eigenvalues `VARIANCES`, in thousandths."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(count, 16, generator=generator, dtype=torch.float64)
    rows = torch.linalg.qr(rows - rows.mean(dim=0)).Q * count**0.5  # centred, of unit covariance
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64)).Q
    pixels = 0.5 + rows * torch.tensor(VARIANCES, dtype=torch.float64).div(1000).sqrt() @ basis.T
    return pixels.float().reshape(count, 1, 4, 4)


def restoration_error(module: LinearAutoencoder, images: Tensor) -> float:
    """The mean squared error of a picture, not clipped."""
    restored = module.reconstruct(module.encode(images, None)[0])
    return float(((restored - images.flatten(1)).double() ** 2).sum(dim=1).mean())


# --- The principal subspace -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def principal() -> LinearAutoencoder:
    module = LinearAutoencoder.from_config(LINEAR)
    module.fit(known_spectrum())
    return module


def test_its_error_is_the_sum_of_the_discarded_eigenvalues(principal: LinearAutoencoder) -> None:
    assert 1000 * restoration_error(principal, known_spectrum()) == pytest.approx(2.1875, rel=1e-4)


def test_its_codes_have_the_kept_eigenvalues_as_variances(principal: LinearAutoencoder) -> None:
    codes = principal.encode(known_spectrum(), None)[0].double()
    covariance = 1000 * torch.cov(codes.T, correction=0)
    np.testing.assert_allclose(covariance, np.diag([9.0, 4.0, 2.0]), atol=1e-3)


def test_its_weights_are_tied_and_orthonormal(principal: LinearAutoencoder) -> None:
    np.testing.assert_allclose(principal.components @ principal.components.T, np.eye(3), atol=1e-6)
    z = torch.tensor([[0.01, 0.02, -0.01]])
    torch.testing.assert_close(principal.encode(principal.decode(z, None), None)[0], z, atol=1e-6, rtol=0)


def test_a_trained_linear_code_comes_near_it_and_not_below(principal: LinearAutoencoder) -> None:
    rows = known_spectrum().flatten(1) - 0.5
    generator = torch.Generator().manual_seed(4)
    layers = [torch.randn(shape, generator=generator).mul(0.1).requires_grad_() for shape in ((16, 3), (3, 16))]
    optimizer = torch.optim.Adam(layers, lr=0.02)
    error = torch.tensor(0.0)
    for _ in range(500):
        optimizer.zero_grad()
        error = ((rows @ layers[0] @ layers[1] - rows) ** 2).sum(dim=1).mean()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert 1 - 1e-5 <= float(error.detach()) / restoration_error(principal, known_spectrum()) < 1.01


def test_its_training_takes_one_step() -> None:
    images = known_spectrum()
    recipe = dataclasses.replace(RECIPES["mnist-pca"], config=LINEAR)
    rows = Split(images=images, labels=torch.zeros(len(images), dtype=torch.int64))
    task = PrincipalTask(recipe, rows, steps=1, generator=torch.Generator(), device=CPU)
    assert 1000 * float(task.step(0)["loss"]) == pytest.approx(2.1875, rel=1e-4)
    trained = task.averaged()
    assert isinstance(trained, LinearAutoencoder)
    assert 1000 * restoration_error(trained, images) == pytest.approx(2.1875, rel=1e-4)


@needs_mnist
@pytest.mark.skipif(not (MODEL_STORE / "mnist-pca").is_dir(), reason="mnist-pca is not in the model store")
def test_the_shipped_one_has_the_discarded_eigenvalues_of_the_real_rows_as_error() -> None:
    folder: Path = MODEL_STORE / "mnist-pca"
    module, images = load_module(load_card(folder), folder), load_data("mnist", DATA).train.images
    assert isinstance(module, LinearAutoencoder)
    rows = images.flatten(1).numpy()
    mean = rows.mean(axis=0, dtype=np.float64)
    moments = sum((part.T @ part).astype(np.float64) for part in np.array_split(rows, 20))
    eigenvalues = np.linalg.eigvalsh(moments / len(rows) - np.outer(mean, mean))
    assert restoration_error(module, images) == pytest.approx(eigenvalues[:-32].sum(), rel=1e-4)


# --- The prior of codes -----------------------------------------------------------------------------------------------


class CodesAsImages(SamplingAutoencoder):
    """Decodes a code to itself."""

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return z.reshape(-1, 1, 1, 2)


@pytest.fixture(scope="module")
def fitted() -> CodesAsImages:
    """A prior of codes with mean (3, -1), variances 4 and 1.25, and covariance 1."""
    codes = torch.randn(2000, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    codes = torch.linalg.qr(codes - codes.mean(dim=0)).Q * 1999**0.5  # centred, of unit covariance
    module = CodesAsImages((1, 1, 2), 2)
    module.fit_prior(torch.tensor([3.0, -1.0]) + codes @ torch.tensor([[2.0, 0.5], [0.0, 1.0]], dtype=torch.float64))
    return module


def test_the_fitted_prior_has_the_moments_of_the_codes(fitted: CodesAsImages) -> None:
    np.testing.assert_allclose(fitted.prior_mean, [3.0, -1.0], atol=1e-5)
    np.testing.assert_allclose(fitted.prior_root, [[2.0, 0.0], [0.5, 1.0]], atol=1e-4)


@pytest.mark.parametrize(
    ("share", "mean", "covariance"),
    [
        pytest.param(0.0, [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], id="naive"),
        pytest.param(0.5, [1.5, -0.5], [[2.25, 0.375], [0.375, 1.0625]], id="between"),
        pytest.param(1.0, [3.0, -1.0], [[4.0, 1.0], [1.0, 1.25]], id="fitted"),
    ],
)
def test_samples_have_the_moments_of_the_prior_asked_for(
    fitted: CodesAsImages, share: float, mean: list[float], covariance: list[list[float]]
) -> None:
    codes = draw(fitted, 40_000, prior_fit=share).flatten(1).double()
    np.testing.assert_allclose(codes.mean(dim=0), mean, atol=0.05)
    np.testing.assert_allclose(torch.cov(codes.T), covariance, atol=0.1)


def test_the_fitted_prior_is_the_default(fitted: CodesAsImages) -> None:
    assert torch.equal(draw(fitted, 8), draw(fitted, 8, prior_fit=1.0))


def test_truncation_bounds_the_normals_before_the_prior(fitted: CodesAsImages) -> None:
    assert draw(fitted, 1000, prior_fit=0.0, truncation=0.5).abs().max() <= 0.5


def test_a_code_that_never_varies_is_fitted() -> None:
    module = CodesAsImages((1, 1, 2), 2)
    module.fit_prior(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(module.prior_root, [[2**0.5, 0.0], [0.0, 0.001]], atol=1e-4)


def test_a_passed_deadline_ends_a_draw(fitted: CodesAsImages) -> None:
    with pytest.raises(DeadlinePassed):
        fitted.sample(noise(1), None, Draw(), Deadline(unix_s=1.0))


def test_a_denoiser_does_not_sample() -> None:
    assert not isinstance(build("conv-denoiser"), Sampler)
    assert isinstance(build("conv-autoencoder"), Sampler)


# --- Denoising --------------------------------------------------------------------------------------------------------


class Shrinking(NetworkAutoencoder):
    """Shrinks pixels towards 0.5 by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__((1, 4, 4), 16)
        self.factor = factor

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        return torch.logit(0.5 + self.factor * (images.flatten(1) - 0.5)), None

    def logits(self, z: Tensor) -> Tensor:
        return z.reshape(-1, 1, 4, 4)


def test_the_loss_of_denoising_is_least_at_the_wiener_factor() -> None:
    """Pixels N(0.5, 0.0025) with noise of variance 0.01 / 3 in the mean: the factor is 0.0025 / (0.0025 + 0.01 / 3)."""
    count = 20_000
    images = 0.5 + 0.05 * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(6))
    rows = Split(images=images, labels=torch.zeros(count, dtype=torch.int64))
    recipe = dataclasses.replace(RECIPES["mnist-ae"], config=DENSE, fit=AutoencoderFit(noise=0.1))
    losses = []
    for factor in (0.33, 0.43, 0.53):
        generator = torch.Generator().manual_seed(7)
        task = ReconstructionTask(recipe, rows, steps=1, generator=generator, device=CPU)
        task.module = Shrinking(factor)
        losses.append(float(task.losses(images, rows.labels)["loss"].double()))
    low, middle, high = losses
    vertex = 0.43 + 0.05 * (low - high) / (low - 2 * middle + high)  # of the parabola through the three
    assert vertex == pytest.approx(0.4286, abs=0.01)


def test_without_noise_the_loss_is_that_of_the_pictures_themselves() -> None:
    images = pictures(4).clamp(0.1, 0.9)
    rows = Split(images=images, labels=torch.zeros(4, dtype=torch.int64))
    recipe = dataclasses.replace(RECIPES["mnist-ae"], config=DENSE, fit=AutoencoderFit())
    task = ReconstructionTask(recipe, rows, steps=1, generator=torch.Generator(), device=CPU)
    task.module = Shrinking(1.0)
    entropy = nn.functional.binary_cross_entropy(images, images, reduction="none").flatten(1).sum(dim=1).mean()
    assert float(task.losses(images, rows.labels)["loss"]) == pytest.approx(float(entropy), rel=1e-5)


# --- Shapes, rows, and configurations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "length"), [(name, 2 if "conv" in name else 3) for name in KINDS])
def test_a_code_has_its_length_and_decodes_to_an_image_within_range(name: str, length: int) -> None:
    module = build(name)
    assert isinstance(module, Encoder)
    assert isinstance(module, Decoder)
    code, spread = module.encode(pictures(5), None)
    assert (tuple(code.shape), spread) == ((5, length), None)
    images = module.decode(100 * torch.randn(5, length), None)
    assert tuple(images.shape) == (5, 1, 4, 4)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


@pytest.mark.parametrize("name", KINDS)
def test_a_row_does_not_depend_on_the_others(name: str) -> None:
    module, images = build(name), pictures(6)
    others = torch.cat([images[:1], pictures(5, seed=8)])
    codes, changed = module.encode(images, None)[0], module.encode(others, None)[0]
    assert torch.equal(codes[0], changed[0])
    assert torch.equal(module.decode(codes, None)[0], module.decode(changed, None)[0])
    assert not torch.equal(codes[1], changed[1])


def test_a_dense_autoencoder_without_hidden_layers_has_two() -> None:
    module = DenseAutoencoder.from_config({**DENSE, "hidden": []})
    assert [tuple(p.shape) for p in module.parameters()] == [(3, 16), (3,), (16, 3), (16,)]


def test_convolutional_ones_have_the_same_network() -> None:
    one, other = ConvAutoencoder.from_config(CONV), ConvDenoiser.from_config(CONV)
    assert one.state_dict().keys() - other.state_dict().keys() == {"prior_mean", "prior_root"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("autoencoder", {"hidden": 8}, "autoencoder configuration: hidden is 8, must be a list of whole numbers of 1"),
        ("autoencoder", {"hidden": [8, 0]}, r"hidden is \[8, 0\], must be a list"),
        ("autoencoder", {"latent_dim": 2.5}, "latent_dim is 2.5, must be a whole number of 1 or more"),
        ("autoencoder", {"height": True, "hidden": "8"}, "height is True, must be .*; hidden is '8', must be"),
        ("autoencoder", {"depth": 1}, r"unknown or missing keys \['depth'\]; it takes \['channels', 'height',"),
        ("linear-autoencoder", {"latent_dim": 17}, "latent_dim is 17, must be at most the 16 pixels"),
        ("linear-autoencoder", {"hidden": []}, r"linear-autoencoder .* keys \['hidden'\]"),
        ("conv-autoencoder", {"height": 6, "width": 5}, "height is 6, must be divisible by 4; width is 5, must be"),
        ("conv-denoiser", {"features": 0}, "conv-denoiser configuration: features is 0"),
    ],
)
def test_a_wrong_configuration_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_family(name, {**KINDS[name], **change})
