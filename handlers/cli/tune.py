"""The command `fount tune`: how a model runs fastest on this machine, measured and written where workers read it.

Models run in processes of their own, so torch is never loaded here.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.options import FOLDER, json_option, model_store_option

if TYPE_CHECKING:
    from handlers.cards.card import Card
    from handlers.tuning.candidates import Candidate, Goal
    from handlers.tuning.measuring import Measurement

__all__ = ["tune"]

_STATE = Path.home() / ".local" / "state" / "fount"
_FILE = "workers.yaml"


@click.command()
@click.argument("name", metavar="NAME")
@model_store_option("Folder with one folder a model.")
@click.option(
    "--state-dir", type=FOLDER, default=_STATE, show_default="~/.local/state/fount", envvar="FOUNT_STATE_DIR",
    show_envvar=True, help="Where workers keep what they measured; the result goes there, too.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=3, show_default=True, show_envvar=True,
    help="How long each way of running is measured, beside the time it takes to start.",
)  # fmt: skip
@click.option(
    "--goal", type=click.Choice(["throughput", "latency"]), default="throughput", show_default=True, show_envvar=True,
    help="What is best: the most samples a second, or the least time for a batch of 8.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), show_envvar=True,
    help="File to put the result in; entries of other models stay.  [default: workers.yaml in the state folder]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, show_envvar=True, help="Measure, and write no result.")
@json_option("Print one JSON document instead of the table.")
def tune(
    name: str,
    model_store: Path,
    state_dir: Path,
    seconds: float,
    goal: Goal,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure how the model NAME runs fastest on this machine, and write it down for its workers.

    Measured are workers × threads, the precisions that the card allows, both layouts, and compiled or not, each in
    fresh processes that all run at once. What fails its golden samples is dropped, with the reason. Precision, layout,
    threads and compiling are part of the numerics: tuned workers may give other bytes than others, and say so.

    \b
    Example:
      fount tune mnist-cgan
      fount tune mnist-cgan --goal latency --seconds 5
      fount tune ./my-gan --dry-run --json > my-gan.json
    """  # noqa: D301 - \b is click's mark for lines to keep
    from fount.tuned import TunedError, write_tuned
    from handlers.tuning.measuring import best_first, to_document, to_table

    with _unpacked(name, model_store) as (card, folder):
        measured = _measure_all(_candidates(card), folder, state_dir.expanduser(), seconds)
    ordered, dropped = best_first(measured, goal), [one for one in measured if one.dropped]
    file = None if dry_run or not ordered else out or state_dir.expanduser() / _FILE
    try:
        if file is not None:
            write_tuned(file, card.name, ordered[0].candidate.entry)
    except TunedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(to_document(card.name, ordered, dropped, file), indent=2, ensure_ascii=False))
    else:
        click.echo(to_table(ordered, dropped))
        click.echo(f"\n{_conclude(card.name, ordered, file, goal)}")
    if not ordered:
        raise click.exceptions.Exit(1)


@contextmanager
def _unpacked(name: str, model_store: Path) -> Iterator[tuple[Card, Path]]:
    """Pack the model and unpack it, so that what is measured is what will be served."""
    from handlers.cards.card import CardError, load_card
    from handlers.cards.store import StoreError, find_folder
    from handlers.packaging.pack import PackError, pack

    with tempfile.TemporaryDirectory(prefix="fount-tune-") as temporary:
        try:
            model = find_folder(name, model_store)
            card = load_card(model)
            info = pack(model, Path(temporary))
        except (CardError, PackError, StoreError) as error:
            raise click.ClickException(str(error)) from error
        folder = Path(temporary) / "model"
        with zipfile.ZipFile(Path(temporary) / f"{info.name}-{info.version}.mar") as archive:
            archive.extractall(folder)  # of our own making, just now
        yield card, folder


def _candidates(card: Card) -> list[Candidate]:
    from handlers.execution.compiling import find_compiler
    from handlers.tuning.candidates import list_candidates

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return list_candidates(cores, card.precisions, can_compile=find_compiler() is not None)


def _measure_all(candidates: list[Candidate], folder: Path, state_dir: Path, seconds: float) -> list[Measurement]:
    from tqdm import tqdm

    from handlers.tuning.measuring import measure

    measured = []
    with tqdm(candidates, unit="way", disable=None, leave=False) as bar:
        for candidate in bar:
            bar.set_description(str(candidate))
            measured.append(measure(candidate, folder, state_dir, seconds))
    return measured


def _conclude(model: str, ordered: list[Measurement], file: Path | None, goal: Goal) -> str:
    if not ordered:
        return f"No way of running {model} passed; the reasons are above."
    best = f"Best for {goal}: {ordered[0].candidate} (workers × threads)."
    if file is None:
        return f"{best} Nothing was written."
    use = f"Written to {file}. `fount serve` reads workers.yaml in its state folder when it starts"
    return f"{best}\n{use}; `fount serve --tuned {shlex.quote(str(file))}` reads it anywhere."
