"""Recipes of models that draw one pixel after another and know log p(x) exactly."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.cards.card import Parameter, ParameterName, ScoreColumn
from handlers.recipes.catalogue.recipe import AutoregressiveFit, Recipe

__all__ = ["AUTOREGRESSIVE_RECIPES", "GUIDANCE", "TEMPERATURE", "TOP_P", "likelihood_columns", "top_k"]

_ALTERED = "Samples are then no longer of the law that scores are of."
TEMPERATURE = Parameter(
    min=0.0,
    max=2.0,
    default=None,
    description=f"Divides log-probabilities of values; 0 takes the likeliest value every time. {_ALTERED}",
)
TOP_P = Parameter(
    min=0.01,
    max=1.0,
    default=None,
    description=f"Keeps the fewest likeliest values with this probability together. {_ALTERED}",
)
GUIDANCE = Parameter(
    min=0.0,
    max=8.0,
    default=None,
    description=(
        "Weight w of the class: log-probabilities are those without class plus w times the difference that the class "
        f"makes. Other values than 1 take twice the time. {_ALTERED}"
    ),
)


def top_k(levels: int) -> Parameter:
    """Describe top_k of a model of that many values."""
    return Parameter(min=1, max=levels, default=None, description=f"Keeps that many likeliest values. {_ALTERED}")


def _parameters(levels: int) -> Mapping[ParameterName, Parameter]:
    return {"temperature": TEMPERATURE, "top_k": top_k(levels), "top_p": TOP_P, "guidance_scale": GUIDANCE}


def likelihood_columns(dims: int, levels: int) -> tuple[ScoreColumn, ...]:
    """Describe the score of a model of that many values of a sample, each one of that many levels."""
    text = (
        f"log p(x|y), or log p(x) without labels, of the {dims} pixels, rounded to {levels} levels; natural logarithms,"
        " not divided by the number of pixels"
    )
    return (ScoreColumn(name="log-likelihood", unit="nats", kind="EXACT", description=text),)


AUTOREGRESSIVE_RECIPES = (
    Recipe(
        name="mnist-pixelcnn",
        description="Handwritten digits of 28×28 pixels, drawn by class pixel by pixel by a gated PixelCNN.",
        intended_use=(
            "Exact log-likelihoods of MNIST's digits at 256 grey levels, and completions of pictures from their top "
            "rows. About one sample in five reads as another digit; use mnist-cgan or mnist-cvae where digits must be "
            "right."
        ),
        family="gated-pixelcnn",
        config={
            "height": 28, "width": 28, "channels": 1, "classes": 10, "features": 24, "blocks": 8, "components": 10,
            "levels": 256, "run": 14,
        },
        data="mnist",
        steps=15000,
        fit=AutoregressiveFit(batch=16, rate=3e-3, averaging=0.01),
        operations=("SAMPLE", "SCORE"),
        evaluator="mnist-classifier",
        thresholds={"label-accuracy": 0.8},
        parameters=_parameters(256),
        score_columns=likelihood_columns(784, 256),
        draw_steps=56,
        conditions=("PREFIX",),
        max_exec_batch=64,
        measured_samples=2000,
    ),
    Recipe(
        name="digits-pixelcnn",
        description="Handwritten digits of 8×8 pixels, drawn by class pixel by pixel by a gated PixelCNN.",
        intended_use=(
            "Demonstrations and tests of samples in many steps, of exact log-likelihoods, and of completions of 8×8 "
            "digits from their top rows."
        ),
        family="gated-pixelcnn",
        config={
            "height": 8, "width": 8, "channels": 1, "classes": 10, "features": 16, "blocks": 3, "components": 5,
            "levels": 17, "run": 4,
        },
        data="digits",
        steps=1500,
        fit=AutoregressiveFit(batch=32, rate=3e-3, averaging=0.01),
        operations=("SAMPLE", "SCORE"),
        evaluator="digits-classifier",
        parameters=_parameters(17),
        score_columns=likelihood_columns(64, 17),
        draw_steps=16,
        conditions=("PREFIX",),
        max_exec_batch=64,
    ),
    Recipe(
        name="digits-fvbn",
        description="Handwritten digits of 8×8 black or white pixels, each a logistic regression on those before it.",
        intended_use=(
            "The smallest model with exact log-likelihoods, for tests and as the baseline of digits-pixelcnn; samples "
            "are black and white, and few read as a digit."
        ),
        family="fully-visible",
        config={"height": 8, "width": 8, "channels": 1, "classes": 0, "run": 4},
        data="digits",
        steps=2000,
        fit=AutoregressiveFit(batch=64, rate=2e-2, decay=0.02, averaging=0.01),
        operations=("SAMPLE", "SCORE"),
        classes=(),
        evaluator="digits-classifier",
        thresholds={"duplicate-share": 0.01},  # of 64 black or white pixels
        parameters={"temperature": TEMPERATURE, "top_k": top_k(2), "top_p": TOP_P},
        score_columns=likelihood_columns(64, 2),
        draw_steps=16,
        conditions=("PREFIX",),
        max_exec_batch=64,
    ),
)  # fmt: skip
