"""Which archives `fount serve` and `fount demo` run: a folder of them, or a model store that is packed first."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
from click.core import ParameterSource

from service.cli.model_store import PackedStore, model_folders, pack_store, tell
from service.errors import SetupError

__all__ = ["archives_options", "choose_archives"]

_ARCHIVES, _STORE = Path("build/archives"), Path("model_store")
_MOST_NAMED = 8

Command = TypeVar("Command", bound=Callable[..., None])


def archives_options(command: Command) -> Command:
    """Add --archives and --model-store."""
    archives = click.option(
        "--archives", type=click.Path(path_type=Path), default=_ARCHIVES, show_default=True, show_envvar=True,
        help="Folder of .mar files, as `fount pack` writes them.",
    )  # fmt: skip
    store = click.option(
        "--model-store", type=click.Path(path_type=Path), show_envvar=True,
        help="Instead of --archives: folder with one folder a model; each is packed at the start, and served.",
    )  # fmt: skip
    return archives(store(command))


def choose_archives(context: click.Context) -> PackedStore:
    """Find the archives that a command's options mean; a model store is packed, which takes seconds a model.

    Raises:
        click.UsageError: both options are given.
        click.ClickException: no model of the store can be packed, or no option is given and no archives are there.
    """
    archives, store = context.params["archives"], context.params["model_store"]
    is_default = context.get_parameter_source("archives") is ParameterSource.DEFAULT
    if store is None:
        if is_default and not archives.is_dir() and _STORE.is_dir():
            raise click.ClickException(
                f"{archives} is not a folder, but {_STORE} is: serve its models with --model-store {_STORE}, "
                f"or pack them first with `fount pack --all --out {archives}`"
            )
        if is_default and not archives.is_dir():
            raise click.ClickException(
                f"neither {archives} nor {_STORE} is a folder here: name a folder with one folder a model by "
                "--model-store, or a folder of .mar files, as `fount pack` writes them, by --archives"
            )
        return PackedStore(archives=archives)
    if not is_default:
        raise click.UsageError("--archives and --model-store exclude each other, variables of the environment "
                               "included; give one.")  # fmt: skip
    try:
        return _pack(store, context.params["state_dir"].expanduser())
    except SetupError as error:
        raise click.ClickException(str(error)) from error


def _pack(store: Path, state: Path) -> PackedStore:
    names = [folder.name for folder in model_folders(store)]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    click.echo(f"packing {', '.join(names[:_MOST_NAMED])}{more} of {store} …", err=True)
    began_s = time.perf_counter()
    packed = pack_store(store, state)
    count = len(list(packed.archives.glob("*.mar")))
    click.echo(f"packed {count} of {len(names)} models in {time.perf_counter() - began_s:.1f} s", err=True)
    for folder, reason in packed.nameless.items():  # a catalog tells of the others
        click.echo(f"warning: not served: {tell(folder, reason)}", err=True)
    return packed
