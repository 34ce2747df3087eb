"""Training and measuring mixtures and adversarial networks of points."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as ReferenceMixture
from torch import Tensor, nn

from fount.address import Addresses, Stream
from handlers.cards.card import load_card
from handlers.family import Deadline, Draw, Noise
from handlers.models.classifier import ConvClassifier
from handlers.models.density import MixtureDensity
from handlers.models.mixture import GaussianMixture, log_joint_of_components
from handlers.models.point_gan import PointDiscriminator, gradient_penalty
from handlers.recipes.catalogue import RECIPES, Recipe
from handlers.recipes.data.load import Split, TrainingData, load_data
from handlers.recipes.data.points import LAWS
from handlers.recipes.model_folder import load_module
from handlers.recipes.quality.densities import (
    calibration_error,
    count_near_modes,
    kolmogorov_distance,
    measure_mixture,
    measure_points,
)
from handlers.recipes.quality.measures import count_correct
from handlers.recipes.reproducible import reproducible
from handlers.recipes.run.probes import PointProbe
from handlers.recipes.run.training import build_task
from handlers.recipes.tasks.mixtures import MixtureTask, choose_centres, principal_components
from handlers.recipes.tasks.task import Task
from tests.handlers.mnist import DATA, needs_mnist
from tests.handlers.training_toys import CPU, MODEL_STORE, advance, are_equal, refit


@pytest.fixture(scope="module")
def ring() -> TrainingData:
    return load_data("ring")


def new_task(recipe: Recipe, data: TrainingData, seed: int = 5) -> Task:
    with reproducible(seed) as generator:
        return build_task(recipe, data, steps=12, generator=generator, device=CPU)


def shipped(name: str) -> nn.Module:
    return load_module(load_card(MODEL_STORE / name), MODEL_STORE / name)


# --- Expectation maximisation -----------------------------------------------------------------------------------------


def test_principal_components_are_those_of_a_singular_value_decomposition() -> None:
    rows = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 2, 1, 0.5])
    mean, basis, variances = principal_components(rows, 2)
    _, singular, directions = torch.linalg.svd(rows.double() - mean, full_matrices=False)
    torch.testing.assert_close(variances, singular.square() / 200)
    torch.testing.assert_close((basis @ directions[:2].T).abs(), torch.eye(2, dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_variance_outside_the_subspace_is_the_mean_discarded_eigenvalue(digits: TrainingData) -> None:
    task = new_task(RECIPES["digits-gmm"], digits)
    assert isinstance(task.module, GaussianMixture)
    rows = digits.train.images.flatten(1).double().numpy()
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
    assert task.module.noise_variance.item() == pytest.approx(eigenvalues[: 64 - 24].mean(), rel=1e-5)


def test_an_iteration_never_lowers_the_likelihood(digits: TrainingData) -> None:
    task = new_task(refit(RECIPES["digits-gmm"], ridge=1e-9), digits)
    losses = [float(task.step(number)["loss"]) for number in range(12)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_an_iteration_is_that_of_scikit_learn(digits: TrainingData) -> None:
    recipe = refit(RECIPES["digits-gmm"], ridge=0.0)
    recipe = dataclasses.replace(recipe, config={**recipe.config, "dimensions": 3, "classes": 1})
    rows = Split(images=digits.train.images, labels=torch.zeros_like(digits.train.labels))
    task = MixtureTask(recipe, rows, steps=3, generator=torch.Generator().manual_seed(0), device=CPU)
    assert isinstance(task.module, GaussianMixture)
    points = task.module.embed(rows.images).numpy()
    start = {name: value.double().numpy() for name, value in task.module.state_dict().items()}
    precisions = [np.linalg.inv(factor @ factor.T) for factor in start["factors"][0]]
    reference = ReferenceMixture(
        2, weights_init=np.exp(start["log_weights"][0]), means_init=start["means"][0], precisions_init=precisions,
        reg_covar=0, max_iter=1, tol=0,
    )  # fmt: skip
    with pytest.warns(Warning, match="did not converge"):
        reference.fit(points)
    task.step(0)
    assert task.module.means[0].numpy() == pytest.approx(reference.means_, abs=1e-4)
    assert task.module.log_weights[0].exp().numpy() == pytest.approx(reference.weights_, abs=1e-5)
    factors = task.module.factors[0].numpy()
    assert factors @ factors.transpose(0, 2, 1) == pytest.approx(reference.covariances_, abs=1e-4)
    joint = log_joint_of_components(torch.from_numpy(points), *(getattr(task.module, name) for name in (
        "log_weights", "means", "factors")))  # fmt: skip
    assert torch.logsumexp(joint, dim=2)[:, 0].numpy() == pytest.approx(reference.score_samples(points), abs=1e-3)


def test_centres_are_different_points() -> None:
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    centres = choose_centres(points, 3, torch.Generator().manual_seed(0))
    assert sorted(map(tuple, centres.tolist())) == [(0.0, 0.0), (0.0, 9.0), (9.0, 0.0)]


@pytest.mark.parametrize("name", ["digits-gmm", "rings-gan", "rings-gan-collapsed"])
def test_a_resumed_task_ends_with_the_same_bits(name: str, digits: TrainingData, ring: TrainingData) -> None:
    data = digits if name == "digits-gmm" else ring
    whole = advance(new_task(RECIPES[name], data), 0, 6)
    resumed = new_task(RECIPES[name], data, seed=6)
    resumed.load_state(advance(new_task(RECIPES[name], data), 0, 2).state())
    assert are_equal(advance(resumed, 2, 6).state(), whole.state())


def test_a_known_law_stays_as_it_is() -> None:
    data = load_data("line")
    task = new_task(RECIPES["density-1d"], data)
    loss = float(task.step(0)["loss"])
    assert loss == pytest.approx(1.863, abs=0.02)  # the entropy, in nats
    assert not task.averaged().state_dict()


# --- Adversarial points -----------------------------------------------------------------------------------------------


def test_the_gradient_penalty_is_half_the_squared_slope() -> None:
    linear = nn.Linear(2, 1)
    linear.weight.data = torch.tensor([[3.0, 4.0]])
    penalty = gradient_penalty(lambda_module(linear), torch.zeros(5, 2))
    assert penalty.item() == pytest.approx(12.5)


def lambda_module(linear: nn.Linear) -> nn.Module:
    return nn.Sequential(linear, nn.Flatten(0))


@pytest.mark.parametrize("change", [{"penalty": 0.0}, {"discriminator_steps": 1}, {"discriminator_hidden": 8}])
def test_an_option_of_the_fit_changes_the_weights(change: dict[str, float], ring: TrainingData) -> None:
    recipe = RECIPES["rings-gan"]
    plain, other = (advance(new_task(each, ring), 0, 3) for each in (recipe, refit(recipe, **change)))
    assert not are_equal(plain.averaged().state_dict(), other.averaged().state_dict())


def test_a_discriminator_scores_each_point_alone() -> None:
    torch.manual_seed(0)
    discriminator, points = PointDiscriminator(2, 8), torch.randn(5, 2)
    torch.testing.assert_close(discriminator(points)[3:4], discriminator(points[3:4]))


def test_the_picture_shows_generated_and_real_points(ring: TrainingData) -> None:
    picture = PointProbe(ring, (-4.0, 4.0), CPU).draw(MixtureDensity.from_config(LAWS["ring"]))
    assert picture.width > 2 * 320
    assert np.asarray(picture.convert("L")).max() == 255


# --- Quality ----------------------------------------------------------------------------------------------------------


def test_probabilities_that_hold_are_calibrated() -> None:
    posterior = torch.tensor([[0.75, 0.25]] * 4)
    assert calibration_error(posterior, torch.tensor([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(posterior, torch.tensor([0, 0, 0, 0])) == pytest.approx(0.25)


def test_the_distance_from_the_uniform_distribution_is_known() -> None:
    assert kolmogorov_distance(torch.tensor([0.5])) == 0.5
    assert kolmogorov_distance((torch.arange(10) + 0.5) / 10) == pytest.approx(0.05)


def test_points_near_modes_are_counted() -> None:
    law = MixtureDensity.from_config(LAWS["ring"])
    points = torch.tensor([[2.0, 0.0], [2.14, 0.0], [2.16, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert count_near_modes(law, points).tolist() == [2, 0, 1, 0, 0, 0, 0, 0]


class Copies(nn.Module):
    """A generator of points that draws some modes of the ring and no others."""

    def __init__(self, modes: int) -> None:
        super().__init__()
        self.modes = modes

    @classmethod
    def from_config(cls, config: object) -> Copies:
        raise NotImplementedError

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        mode = (noise.uniform(Stream.LABEL, 1)[:, 0] * self.modes).long()
        means = torch.tensor(LAWS["ring"]["means"], dtype=torch.float32)
        return means[mode] + 0.05 * noise.normal(Stream.LATENT, (2,))


@pytest.mark.parametrize("modes", [3, 8])
def test_modes_found_are_counted(modes: int, ring: TrainingData) -> None:
    found = {entry.metric: entry for entry in measure_points(ring, Copies(modes))}
    assert (found["modes-found"].value, found["modes-found"].real_value) == (modes, 8)
    assert found["modes-found"].interval == (modes, modes)
    assert found["near-mode-share"].value == pytest.approx(0.9889, abs=0.002)  # 1 - exp(-9/2)
    assert found["rarest-mode-share"].value == pytest.approx(1 / 8 if modes == 8 else 0, abs=0.01)


def test_the_collapsed_network_misses_modes_that_the_other_finds() -> None:
    modes = {
        name: next(entry for entry in load_card(MODEL_STORE / name).quality if entry.metric == "modes-found")
        for name in ("rings-gan", "rings-gan-collapsed")
    }
    assert modes["rings-gan"].value == 8
    assert modes["rings-gan-collapsed"].interval[1] < 8


def test_a_mixture_finds_its_own_rows_likelier(digits: TrainingData) -> None:
    few = dataclasses.replace(digits, train=Split(images=digits.train.images[:200], labels=digits.train.labels[:200]))
    gaps = []
    for data in (digits, few):
        mixture = advance(new_task(RECIPES["digits-gmm"], data), 0, 5).averaged()
        assert isinstance(mixture, GaussianMixture)
        gaps.append({entry.metric: entry for entry in measure_mixture(data, mixture)}["train-test-gap"])
    assert gaps[1].value > 2 * gaps[0].value > 0
    assert gaps[1].interval[0] > 0


def test_density_scores_are_the_same_through_noise_of_any_address() -> None:
    module, rows = shipped("digits-gmm"), load_data("digits").test.images[:8]
    assert isinstance(module, GaussianMixture)
    scores = [
        module.score(rows, None, Noise(addresses=Addresses.of_range(seed, 0, 8), device=CPU), Draw(), Deadline())
        for seed in (0, 1)
    ]
    assert torch.equal(*scores)


# --- Bayes' rule against other classifiers ----------------------------------------------------------------------------


def accuracies(data: TrainingData, mixture: nn.Module, classifier: nn.Module) -> tuple[float, float, float]:
    """Accuracy on test rows of the nearest class mean, the mixture by Bayes' rule, and a trained classifier."""
    assert isinstance(mixture, GaussianMixture)
    assert isinstance(classifier, ConvClassifier)
    means = torch.stack([data.train.of_class(k).flatten(1).mean(dim=0) for k in range(10)])
    nearest = torch.cdist(data.test.images.flatten(1), means).argmin(dim=1)
    hits = int((nearest == data.test.labels).sum())
    others = (count_correct(each, data.test.images, data.test.labels) for each in (mixture, classifier))
    count = len(data.test.labels)
    return hits / count, *(other / count for other in others)  # type: ignore[return-value]


def test_bayes_on_digits_is_between_the_nearest_mean_and_the_classifier(digits: TrainingData) -> None:
    nearest, bayes, trained = accuracies(digits, shipped("digits-gmm"), shipped("digits-classifier"))
    assert nearest + 0.05 < bayes <= trained
    assert bayes == pytest.approx(0.986, abs=0.005)


@needs_mnist
def test_bayes_on_mnist_is_between_the_nearest_mean_and_the_classifier() -> None:
    data = load_data("mnist", DATA)
    few = dataclasses.replace(data, test=Split(images=data.test.images[:2000], labels=data.test.labels[:2000]))
    nearest, bayes, trained = accuracies(few, shipped("mnist-gmm"), shipped("mnist-classifier"))
    assert nearest + 0.1 < bayes < trained
    assert bayes > 0.95


def test_data_of_points_are_the_same_each_time() -> None:
    data = load_data("line")
    assert data.digest == load_data("line").digest
    assert (len(data.train.images), len(data.test.images), data.classes) == (20_000, 10_000, ("0", "1", "2"))
    shares = torch.bincount(data.train.labels) / 20_000
    assert shares.tolist() == pytest.approx(LAWS["line"]["weights"], abs=0.02)
    assert math.isfinite(float(data.train.images.sum()))


def test_a_folder_is_not_needed_for_points(tmp_path: Path) -> None:
    assert load_data("plane", tmp_path).train.images.shape == (20_000, 2)
