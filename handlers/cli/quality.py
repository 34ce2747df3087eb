"""The command `fount quality`. Torch is imported only when something is measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.options import data_option, find_model, json_option, model_store_option, option

if TYPE_CHECKING:
    from handlers.cards.card import Card, Quality
    from handlers.recipes.quality.measure_model import ModelMeasurer

__all__ = ["quality"]


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@data_option()
@model_store_option("Folder with one folder for each model; it also contains the evaluator classifiers.")
@option("--quick", is_flag=True, help="Skip training classifiers on samples.")
@option("--report", type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Measure nothing: read the results of an evaluation, as `fount evaluate --report FILE.json` wrote "
             "them.")  # fmt: skip
@option("--write", is_flag=True, help="Write the results into the cards.")
@option("--verbose", is_flag=True, help="Print below each metric how it was measured.")
@json_option("Print a JSON array instead of text.")
@option("--table", is_flag=True, help="Measure nothing: print the values of the cards as Markdown.")
@option("--data-set", help="Measure with this data set.  [default: the one the card names]")
@option("--judge", "evaluator", envvar="FOUNT_QUALITY_JUDGE",
        help="Classifier of the store that labels samples.  [default: the data set's]")  # fmt: skip
def quality(
    names: tuple[str, ...],
    data: Path,
    model_store: Path,
    quick: bool,
    report: Path | None,
    write: bool,
    verbose: bool,
    as_json: bool,
    table: bool,
    data_set: str | None,
    evaluator: str | None,
) -> None:
    """Measure the models NAME on held-out real data, each value with its 95 % interval.

    NAME is a folder of the model store, or a path to a model folder (./my-gan). On MNIST a generator takes about ten
    minutes, with --quick half a minute. With --quick --write, a card keeps its older value of skipped metrics.

    \b
    Example:
      fount quality digits-cvae
      fount quality mnist-cgan --data ~/data --quick --verbose
      fount quality ./my-gan --data-set mnist --write
      fount quality ./my-gan --report report.json --write
      fount quality --table
    """  # noqa: D301 - \b makes click keep the lines
    if table:
        click.echo(_tabulate(names, model_store))
        return
    if not names:
        raise click.UsageError("Name models to measure, or use --table to print the values of all cards.")
    if report and len(names) != 1:
        raise click.UsageError("A report is about one model: name only that one.")
    from handlers.recipes.quality.measure_model import ModelMeasurer
    from handlers.recipes.quality.table import to_text

    measurer = ModelMeasurer(data=data, model_store=model_store, data_set=data_set, evaluator=evaluator)
    documents = []
    for folder in [find_model(name, model_store) for name in names]:
        card, found = _measure(measurer, folder, quick=quick, report=report, write=write)
        documents.append({"model": card.name, "quality": [_to_document(card, entry) for entry in found]})
        if not as_json:
            click.echo(to_text(card, found, verbose=verbose) + (f"\n  written to {folder}" if write else ""))
    if as_json:
        click.echo(json.dumps(documents, indent=2, ensure_ascii=False))


def _measure(
    measurer: ModelMeasurer, folder: Path, *, quick: bool, report: Path | None, write: bool
) -> tuple[Card, tuple[Quality, ...]]:
    from handlers.cards.card import CardError, load_card
    from handlers.loading.build import BuildError
    from handlers.loading.weights import WeightsError
    from handlers.models import UnknownFamilyError
    from handlers.recipes.data.load import DataError
    from handlers.recipes.quality.card_quality import merge_quality, read_report, write_quality
    from handlers.recipes.quality.measure_model import MeasurementError

    try:
        found = measurer.measure_folder(folder, quick=quick) if report is None else ()
        card = load_card(folder)
        if report is not None:
            found = read_report(report, card, folder)
        if write:
            write_quality(folder, merge_quality(card.quality, found))
    except (BuildError, MeasurementError, CardError, DataError, UnknownFamilyError, WeightsError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        wrong = f"{folder} cannot be written: {error.strerror or error}"
        raise click.ClickException(f"{wrong}; make it writable, or leave out --write") from error
    return card, found


def _tabulate(names: tuple[str, ...], model_store: Path) -> str:
    from handlers.cards.card import CardError, load_card
    from handlers.cards.store import StoreError, find_folders
    from handlers.recipes.quality.table import to_markdown

    try:
        folders = [find_model(name, model_store) for name in names] or find_folders(model_store)
        return to_markdown([load_card(folder) for folder in folders])
    except (CardError, StoreError) as error:
        raise click.ClickException(str(error)) from error


def _to_document(card: Card, entry: Quality) -> dict[str, object]:
    from handlers.recipes.quality.table import threshold_text

    wanted = threshold_text(card.recipe.name, entry.metric) if card.recipe else ""
    return dataclasses.asdict(entry) | {"wanted": wanted or None}
