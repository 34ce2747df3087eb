"""The command `fount train`. Torch is loaded when it runs, not before."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["train"]

_FOLDER = click.Path(file_okay=False, path_type=Path)
_JUDGE = "digits-classifier"


@click.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--out",
    type=_FOLDER,
    show_envvar=True,
    help="Folder of the model.  [default: the model store's folder of that name]",
)
@click.option("--steps", type=click.IntRange(min=1), show_envvar=True, help="Optimiser steps.  [default: the recipe's]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    show_envvar=True,
    help="Seed of everything.",
)
@click.option(
    "--device", default="cpu", show_default=True, show_envvar=True, help="Where to train: cpu, cuda, cuda:1, ..."
)
@click.option(
    "--model-store",
    type=_FOLDER,
    default=Path("model_store"),
    show_default=True,
    envvar="FOUNT_MODEL_STORE",
    show_envvar=True,
    help="Folder with one folder a model; generators are measured by its digits-classifier.",
)
def train(name: str, out: Path | None, steps: int | None, seed: int, device: str, model_store: Path) -> None:
    """Train the model NAME by its recipe, measure it, and write its folder.

    NAME is digits-cvae, digits-vae or digits-classifier. The same seed, steps and machine give the same weights.

    \b
    Example:
      fount train digits-classifier
      fount train digits-cvae --out my_models/digits-cvae --steps 500 --seed 1
    """  # noqa: D301 - \b is click's mark for lines to keep
    from handlers.recipes.catalogue import RECIPES

    if name not in RECIPES:
        raise click.BadParameter(f"{name!r} is unknown; known recipes: {', '.join(RECIPES)}", param_hint="NAME")
    folder = out or model_store / name
    lines = _train(name, folder, model_store / _JUDGE, steps, seed, device)
    click.echo("\n".join([f"{folder}: trained", *lines]))


def _train(name: str, folder: Path, judge_folder: Path, steps: int | None, seed: int, device: str) -> list[str]:
    """Train, and say what was measured."""
    import torch

    from handlers.card import CardError
    from handlers.recipes.catalogue import RECIPES
    from handlers.recipes.training import train_model

    recipe = RECIPES[name]
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # torch says the latter when it was built without CUDA
        raise click.BadParameter(f"{device!r} is not there: {error}", param_hint="--device") from error
    try:
        card = train_model(
            recipe, folder, judge_folder=judge_folder, steps=steps or recipe.steps, seed=seed, device=where
        )
    except CardError as error:
        raise click.ClickException(f"{error}\nTrain the classifier first: fount train {_JUDGE}") from error
    return [f"  {q.metric} {q.value:g} [{q.interval[0]:g}, {q.interval[1]:g}]" for q in card.quality]
