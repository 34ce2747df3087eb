"""Helpers of the training tests: short trainings, recipes with other hyperparameters, and comparison of weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handlers.recipes.catalogue import RECIPES, Recipe
from handlers.recipes.data.load import load_data
from handlers.recipes.model_folder import load_evaluator
from handlers.recipes.reproducible import reproducible
from handlers.recipes.run.loop import TrainingOptions
from handlers.recipes.run.training import build_task, train_module
from handlers.recipes.tasks.task import Task

MODEL_STORE = Path(__file__).resolve().parents[2] / "model_store"
CPU = torch.device("cpu")
DIGITS = ("digits-cvae", "digits-vae", "digits-cgan", "digits-classifier")


def refit(recipe: Recipe, **changes: Any) -> Recipe:
    """Replace hyperparameters of a recipe."""
    return dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, **changes))


def small(name: str) -> Recipe:
    """A recipe with small batches, for quick steps."""
    return refit(RECIPES[name], batch=16)


def new_task(recipe: Recipe, seed: int = 5, steps: int = 12) -> Task:
    """A new task whose generator and initial weights have a seed."""
    with reproducible(seed) as generator:
        return build_task(recipe, load_data("digits"), steps=steps, generator=generator, device=CPU)


def advance(task: Task, start: int, stop: int) -> Task:
    with reproducible(0):
        for number in range(start, stop):
            task.step(number)
    return task


def options(folder: Path, *, steps: int = 12, seed: int = 5, resume: bool = False, **seconds: float) -> TrainingOptions:
    return TrainingOptions(steps=steps, seed=seed, run_folder=folder, resume=resume, **seconds)


def train(recipe: Recipe, how: TrainingOptions) -> tuple[dict[str, Tensor], list[str]]:
    """Train a module; return its weights and the progress messages."""
    lines: list[str] = []
    data = load_data("digits")
    evaluator = load_evaluator(MODEL_STORE / recipe.evaluator, data) if recipe.evaluator else None
    return train_module(recipe, data, evaluator, how, log=lines.append).state_dict(), lines


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def ignore_z(module: nn.Module) -> None:
    """Make a generator draw one picture for each class, whatever z is."""
    layer = module.get_submodule("input")
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight[:, : module.config.latent_dim] = 0  # type: ignore[union-attr,operator,index]
