"""Recipes of diffusion models, which draw by class in many steps and score."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.cards.card import Parameter, ParameterName, ScoreColumn
from handlers.recipes.catalogue.recipe import DiffusionFit, Recipe

__all__ = ["DIFFUSION_RECIPES"]

_PARAMETERS: Mapping[ParameterName, Parameter] = {
    "steps": Parameter(
        min=1,
        max=256,
        default=18,
        description="Steps from noise to picture, also of scores. Without eta each runs the network twice, the last "
        "once; with eta once.",
    ),
    "eta": Parameter(
        min=0.0,
        max=1.0,
        default=None,
        description="Share of fresh noise in each step: 0 is DDIM, 1 is DDPM. Unset: Heun's method.",
    ),
    "guidance_scale": Parameter(
        min=0.0,
        max=10.0,
        default=1.0,
        description="Moves a sample towards its class: 1 is the law that scores are of, 0 ignores the class, more is "
        "more typical and less varied. Other values than 1 run the network twice as often.",
    ),
    "importance_samples": Parameter(
        min=1,
        max=100,
        default=1,
        description="Noises that each score is averaged over; the likelihood uses 2 or more.",
    ),
}


def _columns(law: str) -> tuple[ScoreColumn, ...]:
    """Name the scores of a law; `law` names its dimensions and levels."""
    bound = f"Variational bound of log p(x|y), or of log p(x) without a label, of {law}; higher with more steps"
    estimate = (
        f"Estimate of log p(x|y), or of log p(x) without a label, of {law}: the density of the differential equation "
        "that Heun's steps follow, with random vectors for its divergence"
    )
    error = "Standard error of log-likelihood over its noises; it has no part for the number of steps"
    return (
        ScoreColumn(name="elbo", unit="nats", kind="LOWER_BOUND", description=bound),
        ScoreColumn(name="log-likelihood", unit="nats", kind="ESTIMATE", description=estimate),
        ScoreColumn(name="standard-error", unit="nats", kind="ESTIMATE", description=error),
    )


DIFFUSION_RECIPES = (
    Recipe(
        name="mnist-diffusion",
        description="Handwritten digits of 28×28 pixels, drawn by class by a diffusion model.",
        intended_use=(
            "Many-step samples of MNIST's digits: quality against the number of steps, guidance, and completing "
            "pictures of which some pixels are given. Its scores are of pictures with 256 grey levels, and as of "
            "every likelihood, simple pictures score higher than digits."
        ),
        family="edm-diffusion",
        config={
            "height": 28, "width": 28, "channels": 1, "classes": 10, "features": [24, 48, 64], "levels": 256,
            "sigma_data": 0.6162, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0,
        },
        data="mnist",
        steps=5000,
        fit=DiffusionFit(),
        operations=("SAMPLE", "SCORE"),
        value_range=(-1.0, 1.0),
        evaluator="mnist-classifier",
        parameters=_PARAMETERS,
        score_columns=_columns("784 pixels of 256 levels"),
        draw_steps=18,
        conditions=("MASK",),
        max_exec_batch=32,
        measured_samples=1000,
    ),
    Recipe(
        name="digits-diffusion",
        description="Handwritten digits of 8×8 pixels, drawn by class by a diffusion model.",
        intended_use=(
            "Demonstrations and tests of many-step models. It knows no other size, script or style of writing than "
            "the 8×8 digits it was trained on."
        ),
        family="edm-diffusion",
        config={
            "height": 8, "width": 8, "channels": 1, "classes": 10, "features": [16, 32], "levels": 17,
            "sigma_data": 0.75, "sigma_min": 0.01, "sigma_max": 80.0, "rho": 7.0,
        },
        data="digits",
        steps=2500,
        fit=DiffusionFit(batch=64),
        operations=("SAMPLE", "SCORE"),
        value_range=(-1.0, 1.0),
        evaluator="digits-classifier",
        parameters=_PARAMETERS,
        score_columns=_columns("64 pixels of 17 levels"),
        draw_steps=18,
        conditions=("MASK",),
        max_exec_batch=32,
        measured_samples=1000,
    ),
)  # fmt: skip
