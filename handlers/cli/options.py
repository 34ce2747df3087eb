"""Options that several commands of the workers' side share, so that they have one name, one default and one twin."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

__all__ = ["FOLDER", "STORE", "data_option", "find_device", "json_option", "model_store_option", "store_argument"]

FOLDER = click.Path(file_okay=False, path_type=Path)
STORE = Path("model_store")
"""The model store when none is named."""

Decorator = Callable[[Any], Any]


def model_store_option(told: str) -> Decorator:
    """Add --model-store; its help says what it is, and what else of it the command reads."""
    return click.option(
        "--model-store", type=FOLDER, default=STORE, show_default=True, envvar="FOUNT_MODEL_STORE", show_envvar=True,
        help=told,
    )  # fmt: skip


def data_option() -> Decorator:
    """Add --data."""
    return click.option(
        "--data", type=FOLDER, default=Path("data"), show_default=True, envvar="FOUNT_DATA", show_envvar=True,
        help="Folder with the files of MNIST, or with a folder mnist that has them; the digits need none.",
    )  # fmt: skip


def json_option(told: str) -> Decorator:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, envvar="FOUNT_JSON", show_envvar=True, help=told)


def store_argument(store: Path) -> str:
    """Write --model-store for a command that is suggested; "" where it is the default."""
    return "" if store == STORE else f" --model-store {shlex.quote(str(store))}"


def find_device(name: str) -> torch.device:
    """Make sure that a device is there.

    Raises:
        click.BadParameter: it is not.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch says the latter when it was built without CUDA
        raise click.BadParameter(f"{name!r} is not there: {error}", param_hint="--device") from error
    return device
