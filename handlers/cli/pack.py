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
class _Packed:
    path: Path
    info: ArchiveInfo

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self.info) | {"path": str(self.path)}


@dataclass(frozen=True, kw_only=True)
class _Refused:
    folder: Path
    reason: str

    def to_json(self) -> dict[str, object]:
        from handlers.cards.card import CardError, load_card

        refusal: dict[str, object] = {"folder": str(self.folder), "error": self.reason}
        try:
            card = load_card(self.folder)
        except CardError:
            return refusal
        return {"name": card.name, "version": card.version} | refusal


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
    results: list[_Packed | _Refused] = []
    for result in _pack_each(folders, out):
        if isinstance(result, _Refused) and not keep_going:
            raise click.ClickException(result.reason)
        results.append(result)
    refused = [result for result in results if isinstance(result, _Refused)]
    if as_json:
        click.echo(json.dumps([result.to_json() for result in results], indent=2))
    else:
        for result in results:
            if isinstance(result, _Packed):
                click.echo(_to_text(result.path, result.info))
        for refusal in refused:
            click.echo(f"Error: {refusal.reason}", err=True)
    if refused:
        raise click.exceptions.Exit(1)


def _pack_each(folders: list[Path], out: Path) -> Iterator[_Packed | _Refused]:
    from handlers.cards.store import find_duplicates
    from handlers.packaging.pack import PackError
    from handlers.packaging.pack import pack as pack_model

    duplicates = find_duplicates(folders)  # before anything is written: one would replace the other
    yield from (_Refused(folder=folder, reason=reason) for folder, reason in duplicates.items())
    for folder in folders:
        if folder in duplicates:
            continue
        try:
            info = pack_model(folder, out)
        except PackError as error:
            yield _Refused(folder=folder, reason=str(error))
        else:
            yield _Packed(path=out / f"{info.name}-{info.version}.mar", info=info)


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


def _to_text(path: Path, info: ArchiveInfo) -> str:
    lines = {
        f"{info.name} {info.version}": "",
        "  model digest": info.model_digest,
        "  archive digest": info.archive_digest,
        "  archive": f"{path} ({info.size_bytes} bytes)",
    }
    return "\n".join(f"{key:<17}{value}".rstrip() for key, value in lines.items())
