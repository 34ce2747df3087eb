"""What the tests of training share: small orders, recipes with other fits, and tasks that fail on purpose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handlers.models.classifier import ConvClassifier
from handlers.recipes.catalogue import RECIPES, Recipe
from handlers.recipes.data.dataset import DataSet
from handlers.recipes.data.load import load_data
from handlers.recipes.model_folder import load_judge
from handlers.recipes.run.reproducible import reproducible
from handlers.recipes.run.run import Pace
from handlers.recipes.tasks.task import Task
from handlers.recipes.training import Order, build_task, train_module

MODEL_STORE = Path(__file__).resolve().parents[2] / "model_store"
CPU = torch.device("cpu")
DIGITS = ("digits-cvae", "digits-vae", "digits-cgan", "digits-classifier")


def digits() -> DataSet:
    return load_data("digits")


def judge() -> ConvClassifier:
    return load_judge(MODEL_STORE / "digits-classifier", digits())


def refit(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with another fit."""
    return dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, **changes))


def small(name: str) -> Recipe:
    """A recipe of small batches, for quick steps."""
    return refit(RECIPES[name], batch=16)


def begin(recipe: Recipe, seed: int = 5, steps: int = 12) -> Task:
    """A new task, with a generator and initial weights of that seed."""
    with reproducible(seed) as generator:
        return build_task(recipe, digits(), steps=steps, generator=generator, device=CPU)


def advance(task: Task, start: int, stop: int) -> Task:
    with reproducible(0):
        for number in range(start, stop):
            task.step(number)
    return task


def order(folder: Path, *, steps: int = 12, seed: int = 5, resume: bool = False, **pace: float) -> Order:
    return Order(steps=steps, seed=seed, run_folder=folder, resume=resume, pace=Pace(**pace))


def train(recipe: Recipe, how: Order) -> tuple[dict[str, Tensor], list[str]]:
    """Weights, and what was said."""
    lines: list[str] = []
    referee = judge() if recipe.judge else None
    return train_module(recipe, digits(), referee, how, say=lines.append).state_dict(), lines


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def forget_z(module: nn.Module) -> None:
    """Make a generator draw one picture a class, whatever z is."""
    layer = module.get_submodule("input")
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight[:, : module.config.latent_dim] = 0  # type: ignore[union-attr,operator,index]
