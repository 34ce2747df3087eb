"""The recipes by name: model family, data, length and hyperparameters of the training, and texts of the model card.

The class of a recipe's `fit` chooses how it is trained; see `handlers.recipes.run.training.build_task`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from handlers.cards.card import Parameter, ParameterName
from handlers.recipes.data.augmentations import Augmentation, RandomAffine, ShiftAndNoise

__all__ = ["RECIPES", "AdamWFit", "ClassifierFit", "GanFit", "Recipe", "VaeFit", "classifier_of"]

_DIGITS = tuple(str(digit) for digit in range(10))
_TRUNCATION = Parameter(
    min=0.5,
    max=4.0,
    default=None,
    description="Draws components of z beyond this many standard deviations again: lower is more typical.",
)


@dataclass(frozen=True, kw_only=True)
class AdamWFit:
    """Hyperparameters of AdamW with a learning rate that falls to 0 along half a cosine.

    A run's weights depend on its fit; checkpoints identify it by its repr, so fields keep their names.

    Attributes:
        batch: rows of a step, drawn with replacement.
        rate: learning rate at the start.
        decay: decoupled weight decay.
        averaging: weight of each step's weights in their running average.
        max_gradient_norm: gradients are clipped to this norm.
    """

    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.0
    averaging: float = 0.01
    max_gradient_norm: float = 100.0


@dataclass(frozen=True, kw_only=True)
class ClassifierFit(AdamWFit):
    """Hyperparameters of a classifier.

    Attributes:
        smoothing: share of a label that is distributed over all classes.
        augmentation: random changes of pictures.
    """

    decay: float = 0.05
    smoothing: float = 0.05
    augmentation: Augmentation = field(default_factory=ShiftAndNoise)


@dataclass(frozen=True, kw_only=True)
class VaeFit(AdamWFit):
    """Hyperparameters of an autoencoder; reconstruction and divergence have equal weights."""


@dataclass(frozen=True, kw_only=True)
class GanFit:
    """Hyperparameters of a conditional GAN.

    Attributes:
        batch: real rows of a step, drawn with replacement, and as many generated ones.
        discriminator_features: channels of its first convolution.
        projection: length of the features that its projection compares with the class; 0 is none.
        generator_rate: learning rate at the start.
        discriminator_rate: the same of the discriminator.
        betas: of Adam, for both.
        constant_share: of the steps at full rate; then rates fall linearly.
        last_share: of the rates, at the end.
        averaging: weight of each step's weights in their running average.
        augment_shift: largest shift, in whole pixels, of what the discriminator sees; 0 is none.
    """

    batch: int = 128
    discriminator_features: int = 32
    projection: int = 0
    generator_rate: float = 2e-4
    discriminator_rate: float = 4e-4
    betas: tuple[float, float] = (0.0, 0.9)
    constant_share: float = 0.5
    last_share: float = 0.02
    averaging: float = 0.001
    augment_shift: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One trainable model.

    Attributes:
        name: of the recipe and of the model.
        description: for the card, as is `intended_use`.
        family: name in `handlers.models.FAMILIES`.
        config: for the family's `from_config`.
        data: name in `handlers.recipes.data.load.DATA_SETS`.
        steps: default number of optimiser steps.
        fit: hyperparameters of its task.
        operations: what a worker can do with it.
        classes: names; empty is unconditional.
        value_range: of the floats it returns or reads.
        precisions: those whose results stay within the tolerance of golden samples.
        evaluator: recipe of the classifier that measures it; None for a classifier.
        thresholds: by metric, the least value it is shipped with.
    """

    name: str
    description: str
    intended_use: str
    family: str
    config: Mapping[str, int | str]
    data: str
    steps: int
    fit: ClassifierFit | VaeFit | GanFit
    operations: tuple[Literal["SAMPLE", "CLASSIFY", "EMBED"], ...] = ("SAMPLE",)
    classes: tuple[str, ...] = _DIGITS
    value_range: tuple[float, float] = (0.0, 1.0)
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32",)
    evaluator: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def samples(self) -> bool:
        """Whether it trains a generator."""
        return "SAMPLE" in self.operations

    @property
    def parameters(self) -> Mapping[ParameterName, Parameter]:
        """The sampling parameters its family takes."""
        return {"truncation": _TRUNCATION} if self.samples else {}


_DIGITS_SHAPE = {"height": 8, "width": 8, "channels": 1}
_MNIST_SHAPE = {"height": 28, "width": 28, "channels": 1}

_DIGITS_MODELS = (
    Recipe(
        name="digits-cvae",
        description="Handwritten digits of 8×8 pixels, drawn by class by a conditional variational autoencoder.",
        intended_use=(
            "Demonstrations, tests and augmentation of the 8×8 digits it was trained on. Samples vary less than real "
            "digits do; it knows no other size, script or style of writing."
        ),
        family="conditional-vae",
        config={
            **_DIGITS_SHAPE, "encoder_features": 20, "decoder_features": 24, "stages": 2, "latent_dim": 16,
            "classes": 10,
        },
        data="digits",
        steps=5000,
        fit=VaeFit(),
        evaluator="digits-classifier",
        thresholds={
            "label-accuracy": 0.95, "classification-accuracy-score": 0.92, "within-class-distance-ratio": 0.80,
        },
    ),
    Recipe(
        name="digits-vae",
        description="Handwritten digits of 8×8 pixels, drawn without a class by a variational autoencoder.",
        intended_use=(
            "Demonstrations and tests of unconditional models. Some samples lie between two digits and read as "
            "neither; use digits-cvae when a label is needed."
        ),
        family="vae",
        config={
            **_DIGITS_SHAPE, "encoder_features": 16, "decoder_features": 24, "stages": 2, "latent_dim": 8,
            "components": 50,
        },
        data="digits",
        steps=5000,
        fit=VaeFit(),
        classes=(),
        evaluator="digits-classifier",
        thresholds={"clear-digit-share": 0.75, "rarest-class-share": 0.05},
    ),
    Recipe(
        name="digits-cgan",
        description="Handwritten digits of 8×8 pixels, drawn by class by a conditional adversarial network.",
        intended_use=(
            "Demonstrations, tests and augmentation of the 8×8 digits it was trained on, with crisper strokes than "
            "digits-cvae. It knows no other size, script or style of writing."
        ),
        family="conditional-gan",
        config={**_DIGITS_SHAPE, "latent_dim": 32, "features": 24, "stages": 2, "classes": 10},
        data="digits",
        steps=10_000,
        fit=GanFit(batch=64, discriminator_features=24, generator_rate=4e-4, averaging=0.002, augment_shift=1),
        value_range=(-1.0, 1.0),
        evaluator="digits-classifier",
        thresholds={
            "label-accuracy": 0.95, "classification-accuracy-score": 0.92, "within-class-distance-ratio": 0.80,
        },
    ),
    Recipe(
        name="digits-classifier",
        description="Classifies handwritten digits of 8×8 pixels, and embeds them in 64 dimensions.",
        intended_use=(
            "Labels and features of 8×8 digits for evaluating generators. It has only seen digits in the middle of the "
            "picture, white on black, and says one of ten digits of anything else as well."
        ),
        family="classifier",
        config={**_DIGITS_SHAPE, "classes": 10, "features": 24, "embedding_dim": 64},
        data="digits",
        steps=1500,
        fit=ClassifierFit(),
        operations=("CLASSIFY", "EMBED"),
        precisions=("fp32", "bf16"),
        thresholds={"test-accuracy": 0.98},
    ),
)  # fmt: skip

_MNIST_MODELS = (
    Recipe(
        name="mnist-cvae",
        description="Handwritten digits of 28×28 pixels, drawn by class by a conditional variational autoencoder.",
        intended_use=(
            "Demonstrations, tests and augmentation of MNIST. Samples are smoother and vary less than real digits do; "
            "it knows no other size, script or style of writing."
        ),
        family="conditional-vae",
        config={
            **_MNIST_SHAPE, "encoder_features": 16, "decoder_features": 24, "stages": 2, "latent_dim": 10,
            "hidden": 192, "likelihood": "bernoulli", "classes": 10,
        },
        data="mnist",
        steps=6000,
        fit=VaeFit(averaging=0.005),
        evaluator="mnist-classifier",
        thresholds={
            "label-accuracy": 0.96, "classification-accuracy-score": 0.95, "within-class-distance-ratio": 0.80,
        },
    ),
    Recipe(
        name="mnist-cgan",
        description="Handwritten digits of 28×28 pixels, drawn by class by a conditional adversarial network.",
        intended_use=(
            "Demonstrations, tests and augmentation of MNIST. It knows no other size, script or style of writing, and "
            "a few samples in a thousand read as another digit than they were asked for."
        ),
        family="conditional-gan",
        config={**_MNIST_SHAPE, "latent_dim": 64, "features": 32, "stages": 2, "classes": 10},
        data="mnist",
        steps=10_000,
        fit=GanFit(batch=64, projection=128, generator_rate=4e-4),
        value_range=(-1.0, 1.0),
        evaluator="mnist-classifier",
        thresholds={
            "label-accuracy": 0.99, "classification-accuracy-score": 0.975, "within-class-distance-ratio": 0.90,
        },
    ),
    Recipe(
        name="mnist-classifier",
        description="Classifies handwritten digits of 28×28 pixels, and embeds them in 64 dimensions.",
        intended_use=(
            "Labels and features of MNIST's digits for evaluating generators. It has only seen digits in the middle of "
            "the picture, white on black, and says one of ten digits of anything else as well."
        ),
        family="classifier",
        config={**_MNIST_SHAPE, "classes": 10, "features": 16, "embedding_dim": 64},
        data="mnist",
        steps=3744,
        fit=ClassifierFit(augmentation=RandomAffine()),
        operations=("CLASSIFY", "EMBED"),
        precisions=("fp32", "bf16"),
        thresholds={"test-accuracy": 0.993},
    ),
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in (*_DIGITS_MODELS, *_MNIST_MODELS)})
"""Recipes by name."""


def classifier_of(data: str) -> Recipe:
    """Find the recipe of a data set's classifier."""
    return next(recipe for recipe in RECIPES.values() if recipe.data == data and not recipe.samples)
