"""The recipes by name: what each trains, for how long, and what its card says besides what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from handlers.card import Parameter
from handlers.card_schema import ParameterName
from handlers.recipes.classifiers import CLASSIFIER_CONFIG, CLASSIFIER_STEPS
from handlers.recipes.digits import CLASSES
from handlers.recipes.generators import CVAE_CONFIG, GENERATOR_STEPS, VAE_CONFIG

__all__ = ["JUDGE", "RECIPES", "Recipe"]

JUDGE = "digits-classifier"
"""The model that labels generated digits."""

DATA_LICENCE = (
    "CC BY 4.0: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, "
    "https://doi.org/10.24432/C50P49, as distributed with scikit-learn"
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One trainable model.

    Attributes:
        name: of the recipe and of the model.
        description: one sentence for its card.
        intended_use: what it is for and where it fails.
        family: name in `handlers.models.FAMILIES`.
        config: for the family's `from_config`.
        steps: optimiser steps when nothing else is asked for.
        operations: what a worker can do with it.
        classes: those it knows; empty is unconditional.
        precisions: those whose results stay within the golden samples' tolerance.
    """

    name: str
    description: str
    intended_use: str
    family: str
    config: Mapping[str, int]
    steps: int
    operations: tuple[Literal["SAMPLE", "CLASSIFY", "EMBED"], ...]
    classes: tuple[str, ...]
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32",)

    @property
    def samples(self) -> bool:
        """Whether it trains a generator."""
        return "SAMPLE" in self.operations

    @property
    def parameters(self) -> Mapping[ParameterName, Parameter]:
        """The sampling parameters its family takes."""
        return {"truncation": _TRUNCATION} if self.samples else {}


_TRUNCATION = Parameter(
    min=0.5,
    max=4.0,
    default=None,
    description="Draws components of z beyond this many standard deviations again: lower is more typical.",
)

_RECIPES = (
    Recipe(
        name="digits-cvae",
        description="Handwritten digits of 8×8 pixels, drawn by class by a conditional variational autoencoder.",
        intended_use=(
            "Demonstrations, tests and augmentation of the 8×8 digits it was trained on. Samples vary less than real "
            "digits do; it knows no other size, script or style of writing."
        ),
        family="conditional-vae",
        config=CVAE_CONFIG,
        steps=GENERATOR_STEPS,
        operations=("SAMPLE",),
        classes=CLASSES,
    ),
    Recipe(
        name="digits-vae",
        description="Handwritten digits of 8×8 pixels, drawn without a class by a variational autoencoder.",
        intended_use=(
            "Demonstrations and tests of unconditional models. Some samples lie between two digits and read as "
            "neither; use digits-cvae when a label is needed."
        ),
        family="vae",
        config=VAE_CONFIG,
        steps=GENERATOR_STEPS,
        operations=("SAMPLE",),
        classes=(),
    ),
    Recipe(
        name=JUDGE,
        description="Classifies handwritten digits of 8×8 pixels, and embeds them in 64 dimensions.",
        intended_use=(
            "Labels and features of 8×8 digits for evaluating generators. It has only seen digits in the middle of the "
            "picture, white on black, and says one of ten digits of anything else as well."
        ),
        family="classifier",
        config=CLASSIFIER_CONFIG,
        steps=CLASSIFIER_STEPS,
        operations=("CLASSIFY", "EMBED"),
        classes=CLASSES,
        precisions=("fp32", "bf16"),
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _RECIPES})
"""Recipes by name."""
