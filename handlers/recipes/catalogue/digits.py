"""Recipes of the models of 8×8 digits that sample by class or classify."""

from __future__ import annotations

from handlers.recipes.catalogue.recipe import ClassifierFit, GanFit, Recipe, VaeFit

__all__ = ["DIGITS_RECIPES"]

_SHAPE = {"height": 8, "width": 8, "channels": 1}

DIGITS_RECIPES = (
    Recipe(
        name="digits-cvae",
        description="Handwritten digits of 8×8 pixels, drawn by class by a conditional variational autoencoder.",
        intended_use=(
            "Demonstrations, tests and augmentation of the 8×8 digits it was trained on. Samples vary less than real "
            "digits do; it knows no other size, script or style of writing."
        ),
        family="conditional-vae",
        config={
            **_SHAPE, "encoder_features": 20, "decoder_features": 24, "stages": 2, "latent_dim": 16,
            "classes": 10,
        },
        data="digits",
        steps=5000,
        fit=VaeFit(),
        operations=("SAMPLE", "ENCODE", "DECODE"),
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
            **_SHAPE, "encoder_features": 16, "decoder_features": 24, "stages": 2, "latent_dim": 8,
            "components": 50,
        },
        data="digits",
        steps=5000,
        fit=VaeFit(),
        operations=("SAMPLE", "ENCODE", "DECODE"),
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
        config={**_SHAPE, "latent_dim": 32, "features": 24, "stages": 2, "classes": 10},
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
        config={**_SHAPE, "classes": 10, "features": 24, "embedding_dim": 64},
        data="digits",
        steps=1500,
        fit=ClassifierFit(),
        operations=("CLASSIFY", "EMBED"),
        parameters={},
        precisions=("fp32", "bf16"),
        thresholds={"test-accuracy": 0.98},
    ),
)  # fmt: skip
