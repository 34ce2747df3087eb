"""The command `fount train`. Torch is loaded when it runs, not before."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.options import FOLDER, data_option, find_device, model_store_option, store_argument

if TYPE_CHECKING:
    from handlers.cards.card import Card, Quality
    from handlers.recipes.catalogue import Recipe
    from handlers.recipes.training import Order

__all__ = ["train"]

_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("name", metavar="NAME")
@data_option()
@click.option(
    "--out",
    type=FOLDER,
    show_envvar=True,
    help="Folder of the model.  [default: the model store's folder of that name]",
)
@click.option(
    "--run",
    "run_folder",
    type=FOLDER,
    show_envvar=True,
    help="Folder for checkpoints and pictures.  [default: build/training/NAME]",
)
@click.option("--resume", is_flag=True, show_envvar=True, help="Go on from the newest checkpoint, if there is one.")
@click.option("--steps", type=click.IntRange(min=1), show_envvar=True, help="Optimiser steps.  [default: the recipe's]")
@click.option(
    "--max-seconds", type=_SECONDS, show_envvar=True, help="Stop after so long, with a checkpoint.  [default: never]"
)
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    show_envvar=True,
    help="Seconds between two checkpoints; 0 is after every step.",
)
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
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    show_envvar=True,
    help="Threads of torch; another number gives other weights.",
)
@model_store_option("Folder with one folder a model; generators are measured by a classifier in it.")
def train(
    name: str,
    data: Path,
    out: Path | None,
    run_folder: Path | None,
    resume: bool,
    steps: int | None,
    max_seconds: float | None,
    checkpoint_seconds: float,
    seed: int,
    device: str,
    threads: int,
    model_store: Path,
) -> None:
    """Train the model NAME by its recipe, measure it, and write its folder.

    An unknown NAME is answered with the known ones. The same seed, steps, threads and machine give the same weights,
    however often training was stopped and resumed. It stops with exit code 1 when it diverges or collapses, and with
    75 when its time is up.

    \b
    Example:
      fount train digits-classifier
      fount train digits-cgan --out my_models/digits-cgan --steps 500 --seed 1
      fount train mnist-classifier --data ~/mnist
      fount train mnist-cgan --data ~/mnist --max-seconds 3600
      fount train mnist-cgan --data ~/mnist --resume
    """  # noqa: D301 - \b is click's mark for lines to keep
    from handlers.recipes.catalogue import RECIPES
    from handlers.recipes.run.run import Pace
    from handlers.recipes.training import Order

    if name not in RECIPES:
        raise click.BadParameter(f"{name!r} is unknown; known recipes: {', '.join(RECIPES)}", param_hint="NAME")
    recipe, folder = RECIPES[name], out or model_store / name
    order = Order(
        steps=steps or recipe.steps,
        seed=seed,
        run_folder=run_folder or Path("build/training") / name,
        resume=resume,
        device=find_device(device),
        threads=threads,
        pace=Pace(max_seconds=max_seconds, checkpoint_seconds=checkpoint_seconds),
    )
    card = _train(recipe, folder, order, data, model_store)
    click.echo("\n".join(_describe(folder, order, card)))


def _train(recipe: Recipe, folder: Path, order: Order, data: Path, model_store: Path) -> Card:
    """Train; what a person can act on is a message."""
    from handlers.cards.card import CardError
    from handlers.loading.build import BuildError
    from handlers.loading.weights import WeightsError
    from handlers.recipes.data.dataset import DataError
    from handlers.recipes.run.checkpoints import CheckpointError
    from handlers.recipes.run.run import Paused, TrainingFailed
    from handlers.recipes.training import train_model

    judge = _find_judge(recipe.judge, model_store) if recipe.judge else None
    try:
        return train_model(recipe, folder, order, data_folder=data, judge_folder=judge, say=_say)
    except (BuildError, CardError, WeightsError) as error:
        again = f"\nTrain the classifier first: fount train {recipe.judge}" if recipe.judge else ""
        raise click.ClickException(f"{error}{again}") from error
    except (CheckpointError, DataError, TrainingFailed) as error:
        raise click.ClickException(str(error)) from error
    except Paused as pause:
        click.echo(str(pause), err=True)
        raise click.exceptions.Exit(pause.exit_code) from pause
    except KeyboardInterrupt as stop:  # while it was measured, or the second of two
        told = f"stopped at once; {order.run_folder} has its last checkpoint. Go on by the same command with --resume."
        click.echo(told, err=True)
        raise click.exceptions.Exit(128 + signal.SIGINT) from stop
    except OSError as error:
        raise click.ClickException(
            f"{folder} cannot be written ({error}); the same command with --resume and another --out writes it from "
            f"{order.run_folder}"
        ) from error


def _find_judge(name: str, model_store: Path) -> Path:
    if not (model_store / name).is_dir():
        raise click.ClickException(
            f"{model_store} has no {name} to judge samples by; name the folder that has it with --model-store, or "
            f"train it: fount train {name}{store_argument(model_store)}"
        )
    return model_store / name


def _say(line: str) -> None:
    click.echo(line, err=True)


def _describe(folder: Path, order: Order, card: Card) -> list[str]:
    """Say where the model is, how good, and what to do next."""
    measured = [f"  {_measured(card, entry)}" for entry in card.quality]
    pictures = f"  curves and pictures: {order.run_folder}"
    following = f"  next: fount pack {folder.name}{store_argument(folder.parent)}"
    return [f"{folder}: trained", *measured, pictures, following, *_misses(card)]


def _misses(card: Card) -> list[str]:
    """Count wanted values that are not reached, in one line; none when all are."""
    from handlers.recipes.quality.table import is_reached, wanted_text

    recipe = card.recipe.name if card.recipe else ""
    wanted = [entry for entry in card.quality if wanted_text(recipe, entry.metric)]
    missed = [entry.metric for entry in wanted if not is_reached(recipe, entry.metric, entry.value)]
    return [f"{len(missed)} of {len(wanted)} wishes missed: {', '.join(missed)}"] if missed else []


def _measured(card: Card, entry: Quality) -> str:
    """Give a value with its interval, and what was wanted where that is not reached."""
    from handlers.recipes.quality.table import is_reached, wanted_text

    low, high = entry.interval
    told = f"{entry.metric} {entry.value:g} [{low:g}, {high:g}]"
    if card.recipe is None or is_reached(card.recipe.name, entry.metric, entry.value):
        return told
    return f"{told} (missed: {wanted_text(card.recipe.name, entry.metric)} is wanted)"
