"""The command `fount pack`: model folders to archives, with their digests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.options import FOLDER, find_model, json_option, model_store_option, option

if TYPE_CHECKING:
    from fount.archive import ArchiveInfo

__all__ = ["pack"]


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What became of one model folder: exactly one of both is set.

    Attributes:
        info: the archive that was written.
        refusal: why none was.
    """

    folder: Path
    info: ArchiveInfo | None = None
    refusal: str = ""


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@option("--all", "every", is_flag=True, envvar="FOUNT_PACK_ALL", help="Pack every model of the store.")
@model_store_option("Folder with one folder for each model.")
@option("--out", type=FOLDER, default=Path("build/archives"), envvar="FOUNT_ARCHIVES", help="Folder for the archives.")
@option("--keep-going", is_flag=True, envvar="FOUNT_PACK_KEEP_GOING", help="Pack the others when a model is refused.")
@json_option("Print a JSON array instead of text.")
def pack(names: tuple[str, ...], every: bool, model_store: Path, out: Path, keep_going: bool, as_json: bool) -> None:
    """Pack models into archives that TorchServe runs.

    NAME is a folder of the model store, or a path to a model folder (./shapes-gan). The same inputs give the same
    archive, byte for byte. A model is refused until `fount check` has recorded its golden samples.

    \b
    Example:
      fount pack digits-cvae digits-classifier
      fount pack --all --out build/archives
    """  # noqa: D301 - \b makes click keep the lines
    from handlers.cards.store import list_names

    if every == bool(names):
        raise click.UsageError(f"Name models, or use --all. In {model_store}: {list_names(model_store)}.")
    folders = _folders_to_pack(names, model_store)
    results: list[_Result] = []
    for result in _pack_each(folders, out):
        if result.refusal and not keep_going:
            raise click.ClickException(result.refusal)
        results.append(result)
    if as_json:
        click.echo(json.dumps([_to_document(result, out) for result in results], indent=2))
    else:
        for result in results:
            click.echo(_to_text(result.info, out) if result.info else f"Error: {result.refusal}", err=not result.info)
    if any(result.refusal for result in results):
        raise click.exceptions.Exit(1)


def _pack_each(folders: list[Path], out: Path) -> Iterator[_Result]:
    from handlers.cards.store import find_duplicates
    from handlers.packaging.pack import PackError
    from handlers.packaging.pack import pack as pack_model

    duplicates = find_duplicates(folders)  # before anything is written: one would replace the other
    yield from (_Result(folder=folder, refusal=reason) for folder, reason in duplicates.items())
    for folder in folders:
        if folder in duplicates:
            continue
        try:
            yield _Result(folder=folder, info=pack_model(folder, out))
        except PackError as error:
            yield _Result(folder=folder, refusal=str(error))


def _folders_to_pack(names: tuple[str, ...], model_store: Path) -> list[Path]:
    """Find the named folders, or all when there are no names."""
    from handlers.cards.store import StoreError, find_folders

    if names:
        # A folder named twice, by name and by path, is packed once, and is no duplicate of itself.
        return list({folder.resolve(): folder for folder in (find_model(name, model_store) for name in names)}.values())
    try:
        return find_folders(model_store)
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def _path_of(info: ArchiveInfo, out: Path) -> Path:
    return out / f"{info.name}-{info.version}.mar"


def _to_document(result: _Result, out: Path) -> dict[str, object]:
    from handlers.cards.card import CardError, load_card

    if result.info:
        fields = dataclasses.asdict(result.info) | {"path": str(_path_of(result.info, out))}
        del fields["description"]  # the card, which the caller has
        return fields
    refusal: dict[str, object] = {"folder": str(result.folder), "error": result.refusal}
    try:
        card = load_card(result.folder)
    except CardError:
        return refusal
    return {"name": card.name, "version": card.version} | refusal


def _to_text(info: ArchiveInfo, out: Path) -> str:
    lines = {
        f"{info.name} {info.version}": "",
        "  model digest": info.model_digest,
        "  archive digest": info.archive_digest,
        "  archive": f"{_path_of(info, out)} ({info.size_bytes} bytes)",
    }
    return "\n".join(f"{key:<17}{value}".rstrip() for key, value in lines.items())
