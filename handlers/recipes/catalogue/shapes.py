"""Recipes of the models of 64×64 shapes on marble."""

from __future__ import annotations

from fount.readers.shapes import SHAPE_CLASSES
from handlers.recipes.catalogue.recipe import ClassifierFit, GanFit, Recipe
from handlers.recipes.data.augmentations import RandomAffine

__all__ = ["SHAPES_RECIPES"]

_SHAPE = {"height": 64, "width": 64, "channels": 3}

SHAPES_RECIPES = (
    Recipe(
        name="shapes-dcgan",
        description="Coloured shapes on marble of 64×64 pixels, drawn by shape by a deep convolutional GAN.",
        intended_use=(
            "Demonstrations and tests of colour pictures. Colour, size, place, rotation and ground are its own choice; "
            "some shapes have bent edges or an unclear outline."
        ),
        family="dcgan",
        config={**_SHAPE, "latent_dim": 100, "features": 28, "stages": 4, "classes": len(SHAPE_CLASSES)},
        data="shapes64",
        steps=10_000,
        fit=GanFit(batch=32, discriminator_features=28, generator_rate=4e-4),
        classes=SHAPE_CLASSES,
        value_range=(-1.0, 1.0),
        evaluator="shapes-classifier",
        thresholds={"label-accuracy": 0.95, "clear-colour-share": 0.95},
        max_exec_batch=64,
        measured_samples=5000,
    ),
    Recipe(
        name="shapes-classifier",
        description="Classifies the shape in pictures of 64×64 pixels, and embeds them in 64 dimensions.",
        intended_use=(
            "Labels and features of shapes64 for evaluating generators. It has only seen one shape on a marble ground, "
            "and says one of six shapes of anything else as well."
        ),
        family="classifier",
        config={**_SHAPE, "classes": len(SHAPE_CLASSES), "features": 16, "embedding_dim": 64},
        data="shapes64",
        steps=2500,
        fit=ClassifierFit(batch=64, augmentation=RandomAffine()),
        operations=("CLASSIFY", "EMBED"),
        classes=SHAPE_CLASSES,
        parameters={},
        precisions=("fp32", "bf16"),
        thresholds={"test-accuracy": 0.96},
    ),
)
