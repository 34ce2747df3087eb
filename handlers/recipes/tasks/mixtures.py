"""Training of Gaussian mixtures of images: principal components, then expectation maximisation in each class.

Principal components and K-means++ centres are the start; every step is one iteration of expectation maximisation of all
classes, on all rows, in float64, and never lowers the likelihood, apart from the share of variance that keeps
covariances away from 0. The result is rounded to float32 after each step, so that a resumed run ends in the same
weights.

Sources: Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977; Tipping and
Bishop, "Probabilistic principal component analysis", 1999, equation 8 (the variance outside the subspace); Arthur and
Vassilvitskii, "k-means++: the advantages of careful seeding", 2007.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handlers.models.mixture import GaussianMixture, log_joint_of_components
from handlers.recipes.catalogue import MixtureFit, Recipe
from handlers.recipes.data.load import Split
from handlers.recipes.tasks.task import Task

__all__ = ["MixtureTask", "choose_centres", "principal_components"]

_ROWS = 4096  # converted to float64 at once
_LEAST_WEIGHT = 1e-6  # of a component; one without rows keeps its place and is never drawn


class MixtureTask(Task):
    """One iteration of expectation maximisation a step."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Compute the subspace, and choose and assign centres, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, MixtureFit)
        assert isinstance(self.module, GaussianMixture)
        self._fit, self._mixture = recipe.fit, self.module
        config = self.module.config
        mean, basis, variances = principal_components(self._images.flatten(1), config.dimensions)
        self.module.mean.copy_(mean)
        self.module.basis.copy_(basis)
        self.module.noise_variance.copy_(variances[config.dimensions :].mean())
        self._ridge = recipe.fit.ridge * variances[: config.dimensions].mean()
        coordinates = torch.cat([self.module.embed(part) for part in torch.split(self._images, _ROWS)])
        self._coordinates = [coordinates[self._labels == y] for y in range(config.classes)]
        for y, points in enumerate(self._coordinates):
            centres = choose_centres(points, config.components, generator)
            nearest = torch.cdist(points, centres).argmin(dim=1)
            self._maximise(y, points, nn.functional.one_hot(nearest, config.components).double())

    def averaged(self) -> nn.Module:
        """Return the network itself; nothing is averaged."""
        return self.module

    @torch.no_grad()
    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one iteration; the loss is the mean of -log p(c|y) before it, in nats."""
        total = torch.zeros((), dtype=torch.float64)
        for y, points in enumerate(self._coordinates):
            mixture = self._mixture
            joint = log_joint_of_components(
                points, mixture.log_weights[y : y + 1], mixture.means[y : y + 1], mixture.factors[y : y + 1]
            )[:, 0]  # (n, 1, components) -> (n, components)
            total -= torch.logsumexp(joint, dim=1).sum().cpu()
            self._maximise(y, points, torch.softmax(joint, dim=1))
        return {"loss": total / len(self._labels)}

    def _maximise(self, label: int, points: Tensor, shares: Tensor) -> None:
        """Set the components of a class to the weighted moments of its points.

        Args:
            label: of the class.
            points: (n, d) float64.
            shares: (n, components) float64, responsibilities of the components; rows sum to 1.

        Source: Bishop, "Pattern recognition and machine learning", 2006, equations 9.24 to 9.26.
        """
        counts = shares.sum(dim=0).clamp_min(_LEAST_WEIGHT * len(points))  # (components,)
        means = shares.T @ points / counts[:, None]
        centred = points - means[:, None]  # (components, n, d)
        covariances = (centred * shares.T[..., None]).mT @ centred / counts[:, None, None]
        covariances += self._ridge * torch.eye(points.shape[1], dtype=torch.float64, device=points.device)
        self._mixture.log_weights[label] = (counts / counts.sum()).log()
        self._mixture.means[label] = means
        self._mixture.factors[label] = torch.linalg.cholesky(covariances)


def principal_components(rows: Tensor, dimensions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mean, principal directions and variances of rows.

    Args:
        rows: (N, D) floating.
        dimensions: of the subspace.

    Returns:
        (D,) mean, (dimensions, D) orthonormal directions by falling variance, and (D,) all variances, falling; float64.
    """
    mean = rows.mean(dim=0, dtype=torch.float64)
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, _ROWS):
        centred = part.double() - mean
        covariance += centred.T @ centred / len(rows)
    variances, directions = torch.linalg.eigh(covariance)  # rising
    basis = directions.flip(1).T[:dimensions]
    # the sign of an eigenvector is arbitrary: its largest entry is positive
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    return mean, basis * largest.sign(), variances.flip(0).clamp_min(0)


def choose_centres(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose points that are far from each other: each next one with a probability by squared distance.

    Args:
        points: (n, d) with at least `count` different ones.
        count: of centres.
        generator: on the CPU.

    Returns:
        (count, d).

    Source: Arthur and Vassilvitskii 2007, section 2.2.
    """
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    nearest = (points - points[chosen[0]]).square().sum(dim=1)
    while len(chosen) < count:
        chosen.append(int(torch.multinomial(nearest.cpu(), 1, generator=generator)))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(dim=1))
    return points[chosen]
