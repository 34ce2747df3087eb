"""A TorchServe in the foreground with fixed ports, for a container: `python -P -m service.workers.torchserve.run`.

It verifies the archives, writes the configuration, and replaces itself by Java, so that signals reach TorchServe. Its
folder is `torchserve` in the state folder, and its tokens are `key_file.json` there, for `fount gateway --token-file`.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from fount.cli.variables import CommandWithVariables
from service.errors import SetupError
from service.workers.torchserve.launch import TorchServeConfig, prepare

__all__ = ["run"]


@click.command(
    cls=CommandWithVariables,
    epilog="Example: python -P -m service.workers.torchserve.run --archives build/archives --state state",
)
@click.option("--archives", type=click.Path(path_type=Path), required=True, help="Folder of .mar files.")
@click.option("--state", type=click.Path(path_type=Path), required=True, help="Folder of the workers' measurements.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; private networks only.")
@click.option("--inference-port", default=7070, show_default=True, help="gRPC port of predictions.")
@click.option("--management-port", default=7071, show_default=True, help="gRPC port of management.")
@click.option("--workers", default=1, show_default=True, help="Processes a model version.")
@click.option("--threads", default=1, show_default=True, help="Torch threads a process.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--tuned", type=click.Path(path_type=Path),
              help="Settings of each model from `fount tune`.")  # fmt: skip
@click.option("--gateways", type=click.IntRange(min=1), default=1, show_default=True,
              help="Gateways that share it; its queue has two calls a worker for each.")  # fmt: skip
@click.option("--worker-ports", default="", metavar="FIRST-LAST",
              help="TCP ports on which worker processes serve gateways of other hosts directly, one for each process. "
                   "Unset: Unix sockets, for gateways on this host; others call through TorchServe.")  # fmt: skip
@click.option("--worker-env", multiple=True, metavar="NAME",
              help="A variable of this environment that workers get as well; * stands for any characters. "
                   "Repeatable.")  # fmt: skip
@click.option("--token/--no-token", default=True, show_default=True, help="Keep TorchServe's token authorisation.")
def run(**settings: Any) -> None:
    """Run TorchServe with verified archives until a signal stops it."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    config = TorchServeConfig(**settings, log_to_console=True)  # options are named as its fields
    folder = config.state.resolve() / "torchserve"  # always the same one, because no process removes it when Java ends
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        launch = prepare(config, folder)
    except OSError as error:
        sys.exit(f"error: {folder} cannot be created: {error.strerror}; name a writable folder with --state")
    except SetupError as error:
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(f"error: {error}")
    os.chdir(launch.folder)
    os.execve(launch.command[0], launch.command, launch.environment)  # noqa: S606  # a fixed command, no shell


if __name__ == "__main__":
    run(auto_envvar_prefix="FOUNT_WORKER")
