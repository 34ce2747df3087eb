"""The quality of models with a latent space: what is restored, denoised, sampled and decoded, on toys."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fount.address import Stream
from handlers.cards.card import OperationName, Quality
from handlers.family import Deadline, Draw, Noise
from handlers.recipes.data.load import TrainingData
from handlers.recipes.latents import encode_rows, latent_spread
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.noise import add_noise, noise_at
from handlers.recipes.quality import latent
from handlers.recipes.quality.latent import measure_latents
from handlers.recipes.run.probes import ReconstructionProbe
from tests.handlers.training_toys import CPU

GENERATOR: tuple[OperationName, ...] = ("SAMPLE", "ENCODE", "DECODE")


class Pixels(nn.Module):
    """Its code is the picture itself; it restores every pixel with an offset, as long as it stays within [0, 1]."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset

    @classmethod
    def from_config(cls, config: object) -> Pixels:
        raise NotImplementedError

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        return images.flatten(1), None

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return (z + self.offset).clamp(0, 1).reshape(-1, 1, 8, 8)


class Half(nn.Module):
    """Its code is the mean of each half of a picture; codes with a first number above 0.5 decode to a clear digit.

    Samples are clear with the fitted prior, and never with the naive one.
    """

    def __init__(self, digit: Tensor) -> None:
        super().__init__()
        self.digit = digit

    @classmethod
    def from_config(cls, config: object) -> Half:
        raise NotImplementedError

    def fit_prior(self, codes: Tensor) -> None:
        raise NotImplementedError

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        return images.flatten(1).unflatten(1, (2, 32)).mean(dim=2), None

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return (z[:, 0] > 0.5).float()[:, None, None, None] * self.digit

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        z = noise.uniform(Stream.LATENT, 2).float() - 1  # below 0
        return self.decode(z if draw.prior_fit == 0 else z + 2, None)


def measure(digits: TrainingData, module: nn.Module, evaluator: Evaluator, *names: OperationName) -> dict[str, Quality]:
    return {entry.metric: entry for entry in measure_latents(digits, module, evaluator, names)}


@pytest.fixture(scope="module")
def perfect(digits: TrainingData, evaluator: Evaluator) -> dict[str, Quality]:
    return measure(digits, Pixels(), evaluator, "ENCODE", "DECODE")


def test_perfect_reconstructions_have_no_error_and_the_least_entropy(perfect: dict[str, Quality]) -> None:
    assert perfect["reconstruction-mse"].value == 0
    assert f"have {perfect['reconstruction-bce'].value:.4f}" in perfect["reconstruction-bce"].method


def test_perfect_reconstructions_are_as_clear_as_real_rows(
    perfect: dict[str, Quality], digits: TrainingData, evaluator: Evaluator
) -> None:
    with torch.inference_mode():
        real = evaluator.classifier.classify(digits.test.images).amax(dim=1) >= 0.8
    assert perfect["reconstruction-clear-share"].value == pytest.approx(float(real.float().mean()), abs=1e-3)


def test_a_model_that_returns_its_input_removes_no_noise(perfect: dict[str, Quality]) -> None:
    gains = [entry for metric, entry in perfect.items() if metric.startswith("psnr-gain-")]
    assert [(entry.value, entry.interval) for entry in gains] == [(0.0, (0.0, 0.0))] * 3


def test_an_offset_has_its_square_as_error(digits: TrainingData, evaluator: Evaluator) -> None:
    grey = TrainingData(
        name=digits.name, licence=digits.licence, classes=digits.classes, digest=digits.digest,
        train=digits.train, test=type(digits.test)(images=0.5 * digits.test.images, labels=digits.test.labels),
    )  # fmt: skip
    entry = measure(grey, Pixels(0.125), evaluator, "ENCODE", "DECODE")["reconstruction-mse"]
    assert (entry.value, entry.interval) == (0.0156, (0.0156, 0.0156))


@pytest.fixture(scope="module")
def halves(digits: TrainingData, evaluator: Evaluator) -> dict[str, Quality]:
    with torch.inference_mode():
        clearest = evaluator.classifier.classify(digits.test.images).amax(dim=1).argmax()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent, "_SAMPLES", 200)
        return measure(digits, Half(digits.test.images[clearest]), evaluator, *GENERATOR)


def test_naive_samples_are_drawn_with_the_naive_prior(halves: dict[str, Quality]) -> None:
    assert halves["naive-clear-share"].value == 0
    assert halves["naive-clear-share"].interval[1] == pytest.approx(0.0188, abs=1e-4)


def test_the_grid_reaches_three_standard_deviations(halves: dict[str, Quality], digits: TrainingData) -> None:
    first = digits.train.images.flatten(1)[:, :32].mean(dim=1)
    mean, reach = float(first.mean()), 3 * float(first.std())
    above = sum(mean + reach * (2 * k / 39 - 1) > 0.5 for k in range(40)) / 40
    assert halves["grid-clear-share"].value == pytest.approx(above, abs=1e-3)
    assert "the 40×40 points of a grid" in halves["grid-clear-share"].method


def test_codes_are_computed_for_every_row_and_their_spread_is_known(digits: TrainingData) -> None:
    codes = encode_rows(Pixels(), digits.train.images)
    assert torch.equal(codes, digits.train.images.flatten(1))
    assert latent_spread(torch.tensor([[0.0, 0.0], [2.0, 4.0]])) == pytest.approx(math.sqrt((2 + 8) / 2), abs=5e-3)


# --- Noise, and pictures of a training --------------------------------------------------------------------------------


def test_noise_has_the_level_of_each_picture_and_is_clipped() -> None:
    images = torch.full((2, 1, 100, 100), 0.5)
    noisy = add_noise(images, torch.tensor([0.0, 0.1]), noise_at(3, (2, 1, 100, 100)))
    assert torch.equal(noisy[0], images[0])
    assert float(noisy[1].std()) == pytest.approx(0.1, abs=2e-3)
    assert float(add_noise(images, torch.tensor([9.0, 9.0]), noise_at(3, (2, 1, 100, 100))).max()) == 1


@pytest.mark.parametrize(("noise", "rows"), [pytest.param(0.0, 8, id="plain"), pytest.param(0.7, 12, id="denoising")])
def test_a_picture_of_a_training_shows_rows_before_and_after(digits: TrainingData, noise: float, rows: int) -> None:
    picture = ReconstructionProbe(digits, noise, CPU).draw(Pixels())
    assert isinstance(picture, Image.Image)
    plain = ReconstructionProbe(digits, 0.0, CPU).draw(Pixels())
    assert picture.width == plain.width
    assert picture.height / plain.height == pytest.approx(rows / 8, abs=0.05)


def test_perfect_reconstructions_are_as_far_apart_as_real_pictures(digits: TrainingData) -> None:
    probe = ReconstructionProbe(digits, 0.0, CPU)
    assert probe.measure(Pixels(), 3).ratio == pytest.approx(1.0)
    assert probe.measure(Pixels(-1.0), 3).ratio == 0
