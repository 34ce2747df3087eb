"""Recipes of the models of MNIST that sample by class or classify."""

from __future__ import annotations

from handlers.recipes.catalogue.recipe import ClassifierFit, GanFit, Recipe, VaeFit
from handlers.recipes.data.augmentations import RandomAffine

__all__ = ["MNIST_RECIPES"]

_SHAPE = {"height": 28, "width": 28, "channels": 1}

MNIST_RECIPES = (
    Recipe(
        name="mnist-cvae",
        description="Handwritten digits of 28×28 pixels, drawn by class by a conditional variational autoencoder.",
        intended_use=(
            "Demonstrations, tests and augmentation of MNIST. Samples are smoother and vary less than real digits do; "
            "it knows no other size, script or style of writing."
        ),
        family="conditional-vae",
        config={
            **_SHAPE, "encoder_features": 16, "decoder_features": 24, "stages": 2, "latent_dim": 10,
            "hidden": 192, "likelihood": "bernoulli", "classes": 10,
        },
        data="mnist",
        steps=6000,
        fit=VaeFit(averaging=0.005),
        operations=("SAMPLE", "ENCODE", "DECODE"),
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
        config={**_SHAPE, "latent_dim": 64, "features": 32, "stages": 2, "classes": 10},
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
        config={**_SHAPE, "classes": 10, "features": 16, "embedding_dim": 64},
        data="mnist",
        steps=3744,
        fit=ClassifierFit(augmentation=RandomAffine()),
        operations=("CLASSIFY", "EMBED"),
        parameters={},
        precisions=("fp32", "bf16"),
        thresholds={"test-accuracy": 0.993},
    ),
)  # fmt: skip
