"""The recipes by name: each module has those of one kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from handlers.recipes.catalogue.autoencoders import AUTOENCODER_RECIPES
from handlers.recipes.catalogue.autoregressive import AUTOREGRESSIVE_RECIPES
from handlers.recipes.catalogue.densities import DENSITY_RECIPES
from handlers.recipes.catalogue.diffusions import DIFFUSION_RECIPES
from handlers.recipes.catalogue.digits import DIGITS_RECIPES
from handlers.recipes.catalogue.mnist import MNIST_RECIPES
from handlers.recipes.catalogue.recipe import (
    AdamWFit,
    AutoencoderFit,
    AutoregressiveFit,
    BorrowedFit,
    ClassifierFit,
    CycleGanFit,
    DiffusionFit,
    GanFit,
    ImageDiffusionFit,
    ImageRegressionFit,
    KnownLawFit,
    MixtureFit,
    PointGanFit,
    PrincipalFit,
    Recipe,
    StandardVaeFit,
    VaeFit,
    VaeGanFit,
)
from handlers.recipes.catalogue.reduced import REDUCED_RECIPES
from handlers.recipes.catalogue.shapes import SHAPES_RECIPES
from handlers.recipes.catalogue.transformers import TRANSFORMER_RECIPES
from handlers.recipes.catalogue.translations import TRANSLATION_RECIPES
from handlers.recipes.catalogue.variational import VARIATIONAL_RECIPES

__all__ = [
    "RECIPES",
    "AdamWFit",
    "AutoencoderFit",
    "AutoregressiveFit",
    "BorrowedFit",
    "ClassifierFit",
    "CycleGanFit",
    "DiffusionFit",
    "GanFit",
    "ImageDiffusionFit",
    "ImageRegressionFit",
    "KnownLawFit",
    "MixtureFit",
    "PointGanFit",
    "PrincipalFit",
    "Recipe",
    "StandardVaeFit",
    "VaeFit",
    "VaeGanFit",
    "classifier_of",
]

_ALL = (
    *DIGITS_RECIPES,
    *MNIST_RECIPES,
    *AUTOENCODER_RECIPES,
    *VARIATIONAL_RECIPES,
    *DENSITY_RECIPES,
    *AUTOREGRESSIVE_RECIPES,
    *TRANSFORMER_RECIPES,
    *DIFFUSION_RECIPES,
    *SHAPES_RECIPES,
    *REDUCED_RECIPES,
    *TRANSLATION_RECIPES,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
"""Recipes by name."""


def classifier_of(data: str) -> Recipe:
    """Find the recipe of a data set's classifier."""
    return next(recipe for recipe in RECIPES.values() if recipe.data == data and isinstance(recipe.fit, ClassifierFit))
