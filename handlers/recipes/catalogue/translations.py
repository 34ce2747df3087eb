"""Recipes of models that translate given pictures: into another kind, or into what a classifier takes for a class."""

from __future__ import annotations

from handlers.cards.card import Parameter
from handlers.recipes.catalogue.recipe import BorrowedFit, CycleGanFit, Recipe

__all__ = ["TRANSLATION_RECIPES"]

TRANSLATION_RECIPES = (
    Recipe(
        name="mnist-ink-cyclegan",
        description="Translates handwritten digits into ink on paper and back, learned without pairs.",
        intended_use=(
            "Demonstrations of translation between two kinds of pictures of which no pairs are known; the label is the "
            "direction. It was trained on MNIST's digits and on others of them with wide dark strokes on white, and "
            "knows no other pictures."
        ),
        family="cyclegan",
        config={"height": 28, "width": 28, "channels": 1, "features": 16, "blocks": 4},
        data="mnist",
        steps=6000,
        fit=CycleGanFit(),
        operations=("TRANSLATE",),
        classes=("to-ink", "to-digit"),
        value_range=(-1.0, 1.0),
        evaluator="mnist-classifier",
        parameters={},
        thresholds={"to-ink-label-kept": 0.97, "to-digit-label-kept": 0.97},
    ),
    Recipe(
        name="mnist-ascent",
        description="Pictures that mnist-classifier is sure of, by gradient ascent on its score.",
        intended_use=(
            "A lesson in what a classifier's score is not: it says which digit a picture is if it is one, and of noise "
            "as well. Never use its samples as digits, for training or for evaluation."
        ),
        family="classifier-ascent",
        config={
            "height": 28, "width": 28, "channels": 1, "classes": 10, "features": 16, "embedding_dim": 64,
            "step_size": 0.5,
        },
        data="mnist",
        steps=1,
        fit=BorrowedFit(),
        operations=("SAMPLE", "TRANSLATE"),
        evaluator="mnist-classifier",
        parameters={
            "steps": Parameter(
                min=1,
                max=200,
                default=50,
                description="Steps up the score: more are surer of the class and further from the start, until nothing "
                "is left to gain.",
            )
        },
        thresholds={"noise-certain-share": 0.9, "changed-certain-share": 0.9},
        draw_steps=50,
        max_exec_batch=64,
        measured_samples=1000,
    ),
)  # fmt: skip
