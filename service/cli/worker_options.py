"""The options of commands that run workers of their own, and the pool they make.

Archives and how to run them enter; an `EmbeddedPool` leaves, not yet started.
"""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from service.cli.archives_option import archives_options, choose_archives
from service.cli.options import options
from service.workers.torchserve.embedded import EmbeddedPool
from service.workers.torchserve.launch import TorchServeConfig

__all__ = ["embedded_pool", "worker_options"]

_STATE = Path("~/.local/state/fount")
_TUNED = "workers.yaml"

worker_options = options(
    archives_options,
    click.option("--state-dir", type=click.Path(path_type=Path), default=_STATE, show_default=True, show_envvar=True,
                 help="Folder where workers keep what they measured, and packed model stores lie."),
    click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, show_envvar=True,
                 help="Worker processes a model version."),
    click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, show_envvar=True,
                 help="Torch threads a worker process."),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
                 show_envvar=True, help="What workers compute in; a model whose card forbids it does not serve."),
    click.option("--tuned", type=click.Path(path_type=Path), show_envvar=True, metavar="FILE",
                 help="What `fount tune` found, model by model; it goes before the three above. Unset, workers.yaml in "
                      "the state folder is used where none of them is given."),
)  # fmt: skip


def embedded_pool(context: click.Context) -> EmbeddedPool:
    """A pool over a TorchServe as a command's options want it."""
    given, chosen = context.params, choose_archives(context)
    config = TorchServeConfig(
        archives=chosen.archives,
        state=given["state_dir"].expanduser(),
        workers=given["workers"],
        threads=given["threads"],
        precision=given["precision"],
        tuned=_tuned(context),
    )
    return EmbeddedPool(config, refused=chosen.refused)


def _tuned(context: click.Context) -> Path | None:
    """The file named, or the one in the state folder unless the command says itself how workers are to run."""
    given = context.params
    if given["tuned"] is not None:
        return Path(given["tuned"]).expanduser()
    says = (context.get_parameter_source(name) for name in ("workers", "threads", "precision"))
    found = Path(given["state_dir"]).expanduser() / _TUNED
    return found if found.is_file() and all(each is ParameterSource.DEFAULT for each in says) else None
