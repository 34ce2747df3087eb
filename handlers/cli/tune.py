"""The command `fount tune`: measure how a model runs fastest on this machine, and write it where workers read it.

Models run in separate processes, so torch is never imported here.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fount.cli.output.text import table
from fount.machine import usable_cores
from handlers.cli.options import (
    FILE,
    FOLDER,
    find_model,
    json_option,
    model_store_option,
    option,
    worker_env_option,
)

if TYPE_CHECKING:
    from handlers.cards.card import Card
    from handlers.tuning.measuring import Candidate, Goal, Measurement

__all__ = ["to_table", "tune"]

_STATE = Path.home() / ".local" / "state" / "fount"
_FILE = "workers.yaml"
_FIRST_NUMBER = 6
_HEADER = (
    "workers", "threads", "precision", "layout", "folded", "compiled", "per second", "batch", "ms for 1", "ms for 8",
    "golden samples",
)  # fmt: skip


@click.command()
@click.argument("name", metavar="NAME")
@model_store_option("Folder with one folder for each model.")
@option("--state-dir", type=FOLDER, default=_STATE, show_default="~/.local/state/fount", envvar="FOUNT_STATE_DIR",
        help="Folder where workers store measurements; the result is written there, too.")  # fmt: skip
@option("--seconds", type=click.FloatRange(min=0.1), default=3,
        help="How long each candidate is measured, in addition to the time it takes to start.")  # fmt: skip
@option("--goal", type=click.Choice(["throughput", "latency"]), default="throughput",
        help="What is best: the most samples per second, or the least time for a batch of 8.")  # fmt: skip
@option("--out", type=FILE,
        help="File for the result; entries of other models stay.  [default: workers.yaml in the state folder]",
)  # fmt: skip
@option("--dry-run", is_flag=True, help="Measure, but write no result.")
@worker_env_option
@json_option("Print one JSON document instead of the table.")
def tune(
    name: str,
    model_store: Path,
    state_dir: Path,
    seconds: float,
    goal: Goal,
    out: Path | None,
    dry_run: bool,
    worker_env: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how the model NAME runs fastest on this machine, and write the result for its workers.

    The candidates are combinations of workers × threads, the precisions that the card allows, both layouts, and
    compiled or not, each measured in fresh processes that run at the same time; one without folded batch
    normalisation is for comparison. A candidate that fails its golden samples is dropped, with the reason. Precision,
    layout, threads, folding and compiling are part of the numerics: tuned workers may give other bytes than untuned
    ones, and report other numerics.

    \b
    Example:
      fount tune mnist-cgan
      fount tune mnist-cgan --goal latency --seconds 5
      fount tune ./my-gan --dry-run --json > my-gan.json
    """  # noqa: D301 - \b makes click keep the lines
    from fount.tuned import TunedError, TunedModel, write_tuned
    from handlers.tuning.measuring import best_first

    with _unpacked(name, model_store) as (card, folder):
        measured = _measure_all(_candidates(card), folder, state_dir.expanduser(), seconds, worker_env)
    ordered, dropped = best_first(measured, goal), [one for one in measured if one.dropped]
    file = None if dry_run or not ordered else out or state_dir.expanduser() / _FILE
    try:
        if file is not None:
            write_tuned(file, card.name, TunedModel(**vars(ordered[0].candidate)))
    except TunedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(_to_document(card.name, ordered, dropped, file), indent=2, ensure_ascii=False))
    else:
        click.echo(to_table(ordered, dropped))
        click.echo(f"\n{_conclude(card.name, ordered, file, goal)}")
    if not ordered:
        raise click.exceptions.Exit(1)


@contextmanager
def _unpacked(name: str, model_store: Path) -> Iterator[tuple[Card, Path]]:
    """Pack the model and unpack it, so that what is measured is what will be served."""
    from handlers.cards.card import CardError, load_card
    from handlers.packaging.pack import PackError, pack

    model = find_model(name, model_store)
    with tempfile.TemporaryDirectory(prefix="fount-tune-") as temporary:
        try:
            card = load_card(model)
            info = pack(model, Path(temporary))
        except (CardError, PackError) as error:
            raise click.ClickException(str(error)) from error
        folder = Path(temporary) / "model"
        with zipfile.ZipFile(Path(temporary) / f"{info.name}-{info.version}.mar") as archive:
            archive.extractall(folder)  # packed just above
        yield card, folder


def _candidates(card: Card) -> list[Candidate]:
    from handlers.execution.compiling import find_compiler
    from handlers.tuning.measuring import list_candidates

    return list_candidates(usable_cores(), card.precisions, can_compile=find_compiler() is not None)


def _measure_all(
    candidates: list[Candidate], folder: Path, state_dir: Path, seconds: float, worker_env: Sequence[str]
) -> list[Measurement]:
    from tqdm import tqdm

    from handlers.tuning.measuring import measure

    measured = []
    with tqdm(candidates, unit="candidate", disable=None, leave=False) as bar:
        for candidate in bar:
            bar.set_description(str(candidate))
            measured.append(measure(candidate, folder, state_dir, seconds, worker_env))
    return measured


def _conclude(model: str, ordered: Sequence[Measurement], file: Path | None, goal: Goal) -> str:
    if not ordered:
        return f"No candidate of {model} can be used; the reasons are above."
    best = f"Best for {goal}: {ordered[0].candidate} (workers × threads)."
    if file is None:
        return f"{best} Nothing was written."
    use = f"Written to {file}. `fount serve` reads workers.yaml in its state folder when it starts"
    return f"{best}\n{use}; `fount serve --tuned {shlex.quote(str(file))}` reads it anywhere."


def to_table(ordered: Sequence[Measurement], dropped: Sequence[Measurement]) -> str:
    """Format the measurements, best first, then the dropped candidates with reasons."""
    lines = table([_HEADER, *map(_row, ordered)], right_from=_FIRST_NUMBER)
    return "\n".join([*lines, *(f"dropped: {one.candidate}: {one.dropped}" for one in dropped)])


def _to_document(
    model: str, ordered: Sequence[Measurement], dropped: Sequence[Measurement], written: Path | None
) -> dict[str, Any]:
    """Build the JSON document."""
    return {
        "model": model,
        "written": str(written) if written else None,
        "best": dataclasses.asdict(ordered[0].candidate) if ordered else None,
        "measured": [_measured(one) for one in ordered],
        "dropped": [dataclasses.asdict(one.candidate) | {"reason": one.dropped} for one in dropped],
    }


def _row(one: Measurement) -> tuple[str, ...]:
    how = one.candidate
    note = "" if one.small_batch == 8 else f" (for {one.small_batch})"
    return (
        str(how.workers),
        str(how.threads),
        how.precision,
        how.layout,
        "yes" if how.folded else "no",
        "yes" if how.compiled else "no",
        f"{one.best_per_second:,.0f}",
        str(one.best_batch),
        f"{1000 * one.single_s:.2f}",
        f"{1000 * one.small_s:.2f}{note}",
        one.golden,
    )


def _measured(one: Measurement) -> dict[str, Any]:
    return dataclasses.asdict(one.candidate) | {
        "per_second": {str(size): rate for size, rate in one.per_second.items()},
        "seconds_per_batch": {str(size): seconds for size, seconds in one.seconds.items()},
        "best_batch": one.best_batch,
        "golden": one.golden,
    }
