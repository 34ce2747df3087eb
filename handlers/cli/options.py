"""Options and lookups that several commands of this package share, each with one name and one default."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

__all__ = [
    "FILE", "FOLDER", "STORE", "THREADS", "data_option", "find_device", "find_model", "json_option",
    "model_store_option", "option", "store_argument", "worker_env_option",
]  # fmt: skip

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
THREADS = click.IntRange(1, 1024)
STORE = Path("model_store")
"""The default model store."""

Decorator = Callable[[Any], Any]


def option(*names: str, **settings: Any) -> Decorator:
    """Declare an option whose help shows its default, if it has one, and its environment variable."""
    return click.option(*names, **({"show_envvar": True, "show_default": "default" in settings or None} | settings))


worker_env_option = option(
    "--worker-env", multiple=True, metavar="NAME", envvar="FOUNT_SERVE_WORKER_ENV",
    help="A variable that the model's code gets, as with `fount serve`; * stands for any characters. Repeatable.",
)  # fmt: skip


def model_store_option(help_text: str) -> Decorator:
    """Add --model-store."""
    return option("--model-store", type=FOLDER, default=STORE, envvar="FOUNT_MODEL_STORE", help=help_text)


def data_option() -> Decorator:
    """Add --data."""
    help_text = "Folder with the files of MNIST, or with a folder mnist that has them; the digits need none."
    return option("--data", type=FOLDER, default=Path("data"), envvar="FOUNT_DATA", help=help_text)


def json_option(help_text: str) -> Decorator:
    """Add --json."""
    return option("--json", "as_json", is_flag=True, envvar="FOUNT_JSON", help=help_text)


def store_argument(store: Path) -> str:
    """Format --model-store for a suggested command; "" for the default."""
    return "" if store == STORE else f" --model-store {shlex.quote(str(store))}"


def find_model(name: str, store: Path) -> Path:
    """Find a model folder by name or path.

    Raises:
        click.ClickException: there is none.
    """
    from handlers.cards.store import StoreError, find_folder

    try:
        return find_folder(name, store)
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def find_device(name: str) -> torch.device:
    """Check that a device is available.

    Raises:
        click.BadParameter: it is not.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an AssertionError when torch was built without CUDA
        raise click.BadParameter(f"{name!r} is not available: {error}", param_hint="--device") from error
    return device
