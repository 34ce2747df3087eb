"""Recipes of transformers that draw pictures patch by patch, and text byte by byte, and know log p(x) exactly."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.cards.card import Parameter, ParameterName, ScoreColumn
from handlers.recipes.catalogue.autoregressive import GUIDANCE, TEMPERATURE, TOP_P, likelihood_columns, top_k
from handlers.recipes.catalogue.recipe import AutoregressiveFit, Recipe

__all__ = ["TRANSFORMER_RECIPES"]

_TEXT: Mapping[ParameterName, Parameter] = {"temperature": TEMPERATURE, "top_k": top_k(256), "top_p": TOP_P}
_PICTURES: Mapping[ParameterName, Parameter] = {**_TEXT, "guidance_scale": GUIDANCE}


def _text_columns(length: int) -> tuple[ScoreColumn, ...]:
    text = (
        f"log p(x) of a text of up to {length} bytes as the beginning of a longer one; natural logarithms, not divided "
        "by the number of bytes"
    )
    return (ScoreColumn(name="log-likelihood", unit="nats", kind="EXACT", description=text),)


TRANSFORMER_RECIPES = (
    Recipe(
        name="mnist-imagegpt",
        description="Handwritten digits of 28×28 pixels at 4 grey levels, drawn by class patch by patch by a "
        "transformer.",
        intended_use=(
            "Exact log-likelihoods of MNIST's digits at 4 grey levels, completions of pictures from their top rows, "
            "and a comparison of attention with the convolutions of mnist-pixelcnn. Pictures have 4 grey levels, and "
            "about one sample in fifteen reads as another digit."
        ),
        family="image-transformer",
        config={
            "height": 28, "width": 28, "channels": 1, "classes": 10, "patch": 2, "levels": 4, "layers": 6,
            "features": 96, "heads": 4, "run": 7,
        },
        data="mnist",
        steps=3000,
        fit=AutoregressiveFit(batch=32, rate=2e-3, averaging=0.01),
        operations=("SAMPLE", "SCORE"),
        evaluator="mnist-classifier",
        thresholds={"label-accuracy": 0.92},
        parameters=_PICTURES,
        score_columns=likelihood_columns(784, 4),
        draw_steps=28,
        conditions=("PREFIX",),
        prefix_unit=56,
        max_exec_batch=64,
        measured_samples=2000,
    ),
    Recipe(
        name="digits-imagegpt",
        description="Handwritten digits of 8×8 pixels, drawn by class pixel by pixel by a transformer.",
        intended_use=(
            "Demonstrations and tests of a transformer that draws pictures, and of completions of 8×8 digits from "
            "their top rows."
        ),
        family="image-transformer",
        config={
            "height": 8, "width": 8, "channels": 1, "classes": 10, "patch": 1, "levels": 17, "layers": 2,
            "features": 48, "heads": 4, "run": 4,
        },
        data="digits",
        steps=1000,
        fit=AutoregressiveFit(batch=32, rate=2e-3, averaging=0.01, decay=0.1),
        operations=("SAMPLE", "SCORE"),
        evaluator="digits-classifier",
        parameters={**_PICTURES, "top_k": top_k(17)},
        score_columns=likelihood_columns(64, 17),
        draw_steps=16,
        conditions=("PREFIX",),
        max_exec_batch=64,
        measured_samples=2000,
    ),
    Recipe(
        name="verse-gpt",
        description="English in the manner of Shakespeare's plays, drawn byte by byte by a transformer.",
        intended_use=(
            "Demonstrations of text: continuations of a beginning, and exact log-likelihoods of short passages. It "
            "spells, names speakers and keeps the form of a play, but its sentences mean nothing."
        ),
        family="text-transformer",
        config={
            "length": 192, "layers": 4, "features": 128, "heads": 4, "run": 16,
            "alphabet": "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        },
        data="verse",
        steps=3000,
        fit=AutoregressiveFit(batch=24, rate=2e-3, averaging=0.01),
        operations=("SAMPLE", "SCORE"),
        classes=(),
        length=192,
        value_range=(0.0, 255.0),
        parameters=_TEXT,
        score_columns=_text_columns(192),
        draw_steps=12,
        conditions=("PREFIX",),
        max_exec_batch=64,
        measured_samples=500,
    ),
    Recipe(
        name="grammar-gpt",
        description="Sentences of a known grammar, one in each line, drawn byte by byte by a small transformer.",
        intended_use=(
            "A text model whose errors can be counted: every probability of the true law is known, so that its "
            "likelihood can be compared with the least possible one, and its sentences with the grammar."
        ),
        family="text-transformer",
        config={
            "length": 96, "layers": 2, "features": 64, "heads": 4, "run": 16,
            "alphabet": "\n ,.abcdefghilmnoprstux",
        },
        data="grammar",
        steps=1500,
        fit=AutoregressiveFit(batch=32, rate=3e-3, averaging=0.01),
        operations=("SAMPLE", "SCORE"),
        classes=(),
        length=96,
        value_range=(0.0, 255.0),
        parameters=_TEXT,
        score_columns=_text_columns(96),
        draw_steps=6,
        conditions=("PREFIX",),
        max_exec_batch=64,
        measured_samples=1000,
    ),
)  # fmt: skip
