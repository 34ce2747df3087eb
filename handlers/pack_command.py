"""The command `fount pack`: model folders become archives, and their digests are shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fount.archive import ArchiveInfo

__all__ = ["pack"]

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option(
    "--all", "every", is_flag=True, envvar="FOUNT_PACK_ALL", show_envvar=True, help="Pack every model of the store."
)
@click.option(
    "--model-store",
    type=_FOLDER,
    default=Path("model_store"),
    show_default=True,
    envvar="FOUNT_MODEL_STORE",
    show_envvar=True,
    help="Folder with one folder a model.",
)
@click.option(
    "--out",
    type=_FOLDER,
    default=Path("build/archives"),
    show_default=True,
    envvar="FOUNT_ARCHIVES",
    show_envvar=True,
    help="Folder the archives go to.",
)
@click.option(
    "--json", "as_json", is_flag=True, envvar="FOUNT_JSON", show_envvar=True, help="Print a JSON array instead of text."
)
def pack(names: tuple[str, ...], every: bool, model_store: Path, out: Path, as_json: bool) -> None:
    """Pack models into archives that TorchServe runs.

    The same inputs give the same archive, byte for byte.

    \b
    Example:
      fount pack digits-cvae digits-classifier
      fount pack --all --out build/archives
    """  # noqa: D301 - \b is click's mark for lines to keep
    from handlers.packing import PackError
    from handlers.packing import pack as pack_model

    packed: list[tuple[Path, ArchiveInfo]] = []
    for name in _names_to_pack(names, every, model_store):
        try:
            info = pack_model(model_store / name, out)
        except PackError as error:
            raise click.ClickException(str(error)) from error
        packed.append((out / f"{info.name}-{info.version}.mar", info))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(info) | {"path": str(path)} for path, info in packed], indent=2))
        return
    for path, info in packed:
        click.echo(_to_text(path, info))


def _names_to_pack(names: tuple[str, ...], every: bool, model_store: Path) -> list[str]:
    found = sorted(card.parent.name for card in model_store.glob("*/model.yaml"))
    if every == bool(names):
        raise click.UsageError(f"Name models, or say --all. In {model_store}: {', '.join(found) or 'none'}.")
    if every and not found:
        raise click.ClickException(f"{model_store} has no model; name another with --model-store.")
    for name in names:
        if name not in found:
            raise click.ClickException(f"{model_store} has no model {name!r}; it has {', '.join(found) or 'none'}.")
    return found if every else list(names)


def _to_text(path: Path, info: ArchiveInfo) -> str:
    lines = {
        f"{info.name} {info.version}": "",
        "  model digest": info.model_digest,
        "  archive digest": info.archive_digest,
        "  archive": f"{path} ({info.size_bytes} bytes)",
    }
    return "\n".join(f"{key:<17}{value}".rstrip() for key, value in lines.items())
