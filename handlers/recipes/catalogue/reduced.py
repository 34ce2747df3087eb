"""Recipes of models that are given a reduced picture, and answer by a larger or a coloured one: many, or their mean."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.cards.card import Parameter, ParameterName
from handlers.recipes.catalogue.recipe import ImageDiffusionFit, ImageRegressionFit, Recipe

__all__ = ["REDUCED_RECIPES"]

_PARAMETERS: Mapping[ParameterName, Parameter] = {
    "steps": Parameter(
        min=1,
        max=256,
        default=12,
        description="Steps from noise to picture; each runs the network twice, the last once.",
    ),
}
_SMALL = {"height": 7, "width": 7, "channels": 1}
_GREY = {"height": 28, "width": 28, "channels": 1}
_LEVELS = {"levels": 256, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
_NETWORK = {"classes": 0, "features": [24, 48, 64]}

REDUCED_RECIPES = (
    Recipe(
        name="mnist-sr4",
        description="Handwritten digits of 28×28 pixels from 7×7, drawn by a diffusion model.",
        intended_use=(
            "Many sharp answers to one coarse picture: each index draws another digit whose blocks of 4×4 pixels have "
            "exactly the given means. It invents what the coarse picture lacks, so no answer is evidence of it; it "
            "knows MNIST's digits alone. The answer with the least squared error is that of mnist-sr4-regressor."
        ),
        family="image-diffusion",
        config={**_GREY, **_NETWORK, **_LEVELS, "sigma_data": 0.6162, "given": _SMALL},
        data="mnist",
        steps=3000,
        fit=ImageDiffusionFit(),
        starts_from="mnist-diffusion",
        operations=("TRANSLATE",),
        classes=(),
        value_range=(-1.0, 1.0),
        evaluator="mnist-classifier",
        thresholds={"consistency": 0.999, "label-accuracy": 0.95, "sharpness": 0.74},
        parameters=_PARAMETERS,
        draw_steps=12,
        max_exec_batch=32,
        measured_samples=1000,
    ),
    Recipe(
        name="mnist-sr4-regressor",
        description="Handwritten digits of 28×28 pixels from 7×7: the mean of all answers.",
        intended_use=(
            "The baseline of mnist-sr4: the least squared error, by one blurred answer. Where a coarse picture could "
            "be of two digits, its answer is a mixture of both."
        ),
        family="image-regressor",
        config={**_GREY, "features": [16, 32, 48], "given": _SMALL},
        data="mnist",
        steps=2000,
        fit=ImageRegressionFit(),
        operations=("TRANSLATE",),
        classes=(),
        evaluator="mnist-classifier",
        thresholds={"psnr": 21.0, "label-accuracy": 0.95},
        parameters={},
        measured_samples=1000,
    ),
    Recipe(
        name="mnist-colour",
        description="Handwritten digits in colour from grey ones, drawn by a diffusion model.",
        intended_use=(
            "A law that is known: a digit of class k has a hue near k/10 of the circle in 7 of 10 pictures, and the "
            "opposite one in the others. Each index draws one of the two; the largest channel of an answer is exactly "
            "the given grey. It knows these colours and MNIST's digits alone."
        ),
        family="image-diffusion",
        config={**_GREY, "channels": 3, **_NETWORK, **_LEVELS, "sigma_data": 0.4281, "given": _GREY},
        data="mnist-colour",
        steps=4500,
        fit=ImageDiffusionFit(rate=2e-3, log_sigma_mean=0.5, log_sigma_spread=1.5),  # hues are drawn at much noise
        starts_from="mnist-diffusion",
        operations=("TRANSLATE",),
        classes=(),
        value_range=(-1.0, 1.0),
        parameters=_PARAMETERS,
        draw_steps=12,
        max_exec_batch=32,
        measured_samples=1000,
    ),
    Recipe(
        name="mnist-colour-regressor",
        description="Handwritten digits in colour from grey ones: the mean of all answers, which is half grey.",
        intended_use=(
            "The baseline of mnist-colour: the least squared error, by one answer whose two hues cancel each other. "
            "No picture of the data has its colours."
        ),
        family="image-regressor",
        config={**_GREY, "channels": 3, "features": [16, 32, 48], "given": _GREY},
        data="mnist-colour",
        steps=1500,
        fit=ImageRegressionFit(),
        operations=("TRANSLATE",),
        classes=(),
        parameters={},
        measured_samples=1000,
    ),
)
