"""The command `fount train`. Torch is imported only when it runs."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.options import FOLDER, THREADS, data_option, find_device, model_store_option, option, store_argument

if TYPE_CHECKING:
    from handlers.cards.card import Card, Quality
    from handlers.recipes.catalogue import Recipe
    from handlers.recipes.run.loop import TrainingOptions

__all__ = ["train"]

_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("name", metavar="NAME")
@data_option()
@option("--out", type=FOLDER, help="Folder of the model.  [default: the model store's folder of that name]")
@option("--run", "run_folder", type=FOLDER, help="Folder for checkpoints and pictures.  [default: build/training/NAME]")
@option("--resume", is_flag=True, help="Continue from the newest checkpoint, if there is one.")
@option("--steps", type=click.IntRange(min=1), help="Optimiser steps.  [default: the recipe's]")
@option("--max-seconds", type=_SECONDS, help="Stop after this time, with a checkpoint.  [default: no limit]")
@option("--checkpoint-seconds", type=click.FloatRange(min=0), default=60.0,
        help="Seconds between checkpoints; 0 writes one after every step.")  # fmt: skip
@option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Seed of all randomness.")
@option("--device", default="cpu", help="Device to train on: cpu, cuda, cuda:1, ...")
@option("--threads", type=THREADS, default=1, help="Threads of torch; another number gives other weights.")
@model_store_option("Folder with one folder for each model; generators are measured by a classifier in it.")
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

    An unknown NAME lists the known ones. The same seed, steps, threads and machine give the same weights, however often
    training was stopped and resumed. The exit code is 1 when training diverges or collapses, and 75 when its time is
    up.

    \b
    Example:
      fount train digits-classifier
      fount train digits-cgan --out my_models/digits-cgan --steps 500 --seed 1
      fount train mnist-classifier --data ~/mnist
      fount train mnist-cgan --data ~/mnist --max-seconds 3600
      fount train mnist-cgan --data ~/mnist --resume
    """  # noqa: D301 - \b makes click keep the lines
    from handlers.recipes.catalogue import RECIPES
    from handlers.recipes.run.loop import TrainingOptions

    if name not in RECIPES:
        raise click.BadParameter(f"{name!r} is unknown; known recipes: {', '.join(RECIPES)}", param_hint="NAME")
    recipe, folder = RECIPES[name], out or model_store / name
    options = TrainingOptions(
        steps=steps or recipe.steps,
        seed=seed,
        run_folder=run_folder or Path("build/training") / name,
        resume=resume,
        device=find_device(device),
        threads=threads,
        max_seconds=max_seconds,
        checkpoint_seconds=checkpoint_seconds,
    )
    card = _train(recipe, folder, options, data, model_store)
    click.echo("\n".join(_describe(folder, options, card)))


def _train(recipe: Recipe, folder: Path, options: TrainingOptions, data: Path, model_store: Path) -> Card:
    """Train; errors that the user can correct become messages."""
    from handlers.cards.card import CardError
    from handlers.loading.build import BuildError
    from handlers.loading.weights import WeightsError
    from handlers.recipes.data.load import DataError
    from handlers.recipes.run.checkpoints import CheckpointError
    from handlers.recipes.run.loop import TrainingFailed, TrainingInterrupted
    from handlers.recipes.run.training import train_model

    evaluator = _find_trained(recipe.evaluator, model_store) if recipe.evaluator else None
    start = _find_trained(recipe.starts_from, model_store) if recipe.starts_from else None
    try:
        return train_model(
            recipe, folder, options, data_folder=data, evaluator_folder=evaluator, start_folder=start, log=_log
        )
    except (BuildError, CardError, WeightsError) as error:
        again = f"\nTrain the classifier first: fount train {recipe.evaluator}" if recipe.evaluator else ""
        raise click.ClickException(f"{error}{again}") from error
    except (CheckpointError, DataError, TrainingFailed) as error:
        raise click.ClickException(str(error)) from error
    except TrainingInterrupted as interruption:
        click.echo(str(interruption), err=True)
        raise click.exceptions.Exit(interruption.exit_code) from interruption
    except KeyboardInterrupt as interruption:  # during the measurement, or the second signal
        message = f"stopped at once; the last checkpoint is in {options.run_folder}. Continue with the same command and"
        click.echo(f"{message} --resume.", err=True)
        raise click.exceptions.Exit(128 + signal.SIGINT) from interruption
    except OSError as error:
        raise click.ClickException(
            f"{folder} cannot be written ({error}); the same command with --resume and another --out writes it from "
            f"{options.run_folder}"
        ) from error


def _find_trained(name: str, model_store: Path) -> Path:
    if not (model_store / name).is_dir():
        raise click.ClickException(
            f"{model_store} has no {name}, which training needs; name the folder that has it with --model-store, "
            f"or train it: fount train {shlex.quote(name)}{store_argument(model_store)}"
        )
    return model_store / name


def _log(line: str) -> None:
    click.echo(line, err=True)


def _describe(folder: Path, options: TrainingOptions, card: Card) -> list[str]:
    """Report where the model is, its quality, and what to do next."""
    measured = [f"  {_measured(card, entry)}" for entry in card.quality]
    pictures = f"  curves and pictures: {options.run_folder}"
    following = f"  next: fount pack {shlex.quote(folder.name)}{store_argument(folder.parent)}"
    return [f"{folder}: trained", *measured, pictures, following, *_misses(card)]


def _misses(card: Card) -> list[str]:
    """Count the thresholds that are not reached, in one line; none when all are."""
    from handlers.recipes.quality.table import meets_threshold, threshold_text

    recipe = card.recipe.name if card.recipe else ""
    required = [entry for entry in card.quality if threshold_text(recipe, entry.metric)]
    missed = [entry.metric for entry in required if not meets_threshold(recipe, entry.metric, entry.value)]
    return [f"{len(missed)} of {len(required)} thresholds missed: {', '.join(missed)}"] if missed else []


def _measured(card: Card, entry: Quality) -> str:
    """Format a value with its interval, and its threshold if that is not reached."""
    from handlers.recipes.quality.table import meets_threshold, threshold_text

    low, high = entry.interval
    measured = f"{entry.metric} {entry.value:g} [{low:g}, {high:g}]"
    if card.recipe is None or meets_threshold(card.recipe.name, entry.metric, entry.value):
        return measured
    return f"{measured} (missed: {threshold_text(card.recipe.name, entry.metric)} is required)"
