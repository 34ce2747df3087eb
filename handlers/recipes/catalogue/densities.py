"""Recipes of models with exact densities, and of adversarial networks of points."""

from __future__ import annotations

from handlers.cards.card import OperationName, ScoreColumn
from handlers.recipes.catalogue.recipe import TRUNCATION, KnownLawFit, MixtureFit, PointGanFit, Recipe
from handlers.recipes.data.points import LAWS

__all__ = ["DENSITY_RECIPES"]

_MIXTURE_OPERATIONS: tuple[OperationName, ...] = ("SAMPLE", "CLASSIFY", "EMBED", "SCORE")
_MIXTURE_USE = (
    "Exact log-densities, classes by Bayes' rule, principal components as features, and samples by class. A sample is "
    "the mean picture at a point drawn in the subspace, without the noise outside of it, so it is blurred and scores "
    "higher than real pictures do. Class probabilities are too sure of themselves. Densities are of continuous pixels: "
    "compare them between pictures or models of the same pixels, and with no likelihood of discrete ones."
)
_RING = {"length": 2, "latent_dim": 2, "hidden": 64, "bound": 4.0}


def _column(variable: str, values: str) -> tuple[ScoreColumn, ...]:
    description = f"log {variable} of the continuous density of {values}"
    return (ScoreColumn(name="log-density", unit="nats", kind="EXACT", description=description),)


def _density(name: str, law: str, where: str) -> Recipe:
    """Describe a known law."""
    length = len(LAWS[law]["means"][0])
    return Recipe(
        name=name,
        description=f"A mixture of three normals {where}, sampled by inverting its distribution function.",
        intended_use=(
            "Demonstrations of sampling and scoring where the truth is known: the density, the distribution function "
            "and the entropy are exact. Nothing was trained."
        ),
        family="mixture-density",
        config=LAWS[law],
        data=law,
        steps=1,
        fit=KnownLawFit(),
        operations=("SAMPLE", "SCORE"),
        classes=(),
        length=length,
        value_range=(LAWS[law]["low"], LAWS[law]["high"]),
        parameters={},
        score_columns=_column("p(x)", "the coordinate" if length == 1 else "both coordinates"),
    )


DENSITY_RECIPES = (
    Recipe(
        name="digits-gmm",
        description="Handwritten digits of 8×8 pixels, one Gaussian mixture a class: samples, densities and classes.",
        intended_use=_MIXTURE_USE,
        family="gaussian-mixture",
        config={"height": 8, "width": 8, "channels": 1, "dimensions": 24, "classes": 10, "components": 2},
        data="digits",
        steps=20,
        fit=MixtureFit(ridge=0.05),
        operations=_MIXTURE_OPERATIONS,
        evaluator="digits-classifier",
        thresholds={"bayes-accuracy": 0.97, "label-accuracy": 0.90},
        score_columns=_column("p(x|y), without a label p(x),", "all 64 pixels, each between 0 and 1"),
    ),
    Recipe(
        name="mnist-gmm",
        description="Handwritten digits of 28×28 pixels, one Gaussian mixture a class: samples, densities and classes.",
        intended_use=_MIXTURE_USE,
        family="gaussian-mixture",
        config={"height": 28, "width": 28, "channels": 1, "dimensions": 32, "classes": 10, "components": 5},
        data="mnist",
        steps=40,
        fit=MixtureFit(),
        operations=_MIXTURE_OPERATIONS,
        evaluator="mnist-classifier",
        thresholds={"bayes-accuracy": 0.95, "label-accuracy": 0.80},
        score_columns=_column("p(x|y), without a label p(x),", "all 784 pixels, each between 0 and 1"),
    ),
    _density("density-1d", "line", "on the line"),
    _density("density-2d", "plane", "in the plane"),
    Recipe(
        name="rings-gan",
        description="Points near eight modes on a circle: an adversarial network that finds all of them.",
        intended_use=(
            "Demonstrations of adversarial training where the truth is known. Compare it with rings-gan-collapsed: the "
            "same networks, data and rates, with what keeps the generator from losing modes."
        ),
        family="point-gan",
        config=_RING,
        data="ring",
        steps=6000,
        fit=PointGanFit(),
        classes=(),
        length=2,
        value_range=(-_RING["bound"], _RING["bound"]),
        parameters={"truncation": TRUNCATION},
        thresholds={"modes-found": 8, "near-mode-share": 0.9},
    ),
    Recipe(
        name="rings-gan-collapsed",
        description="Points near some of eight modes on a circle: an adversarial network that lost the others.",
        intended_use=(
            "A lesson, not a good generator: samples that look real one by one and miss modes of the data. It was "
            "trained as rings-gan was, but with one discriminator step for each of the generator, with momentum, and "
            "without the gradient penalty."
        ),
        family="point-gan",
        config=_RING,
        data="ring",
        steps=6000,
        fit=PointGanFit(discriminator_steps=1, penalty=0.0, betas=(0.9, 0.999)),
        classes=(),
        length=2,
        value_range=(-_RING["bound"], _RING["bound"]),
        parameters={"truncation": TRUNCATION},
    ),
)
