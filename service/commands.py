"""The gateway's commands: `fount serve`, `fount gateway`, `fount demo`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from service.config import GatewayConfig
from service.domain import Operation, ServedModel
from service.errors import SetupError
from service.gateway import Gateway
from service.workers import WorkerPool
from service.workers.torchserve.embedded_pool import EmbeddedPool
from service.workers.torchserve.launch import TorchServeConfig
from service.workers.torchserve.pool import TorchServePool
from service.workers.torchserve.wire import Address

__all__ = ["demo", "gateway", "serve"]

_READY_S = 120.0
_STATE = Path("~/.local/state/fount")
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")

Command = TypeVar("Command", bound=Callable[..., None])


def _options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


_listen = _options(
    click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="Address to listen on."),
    click.option("--port", default=50051, show_default=True, show_envvar=True, help="gRPC port; 0 takes a free one."),
    click.option("--http-port", default=8000, show_default=True, show_envvar=True,
                 help="Port of /metrics, /livez and /readyz; 0 takes a free one."),
    click.option("--require", multiple=True, metavar="MODEL", show_envvar=True,
                 help="A model that must be ready before the gateway is. Repeatable."),
    click.option("--default-version", multiple=True, metavar="MODEL=VERSION", show_envvar=True,
                 help="What an empty version means; otherwise the newest. Repeatable."),
    click.option("--drain", default=10.0, show_default=True, show_envvar=True,
                 help="Seconds running streams may go on after a stop was asked for."),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
                 show_default=True, show_envvar=True),
)  # fmt: skip

_torchserve = _options(
    click.option("--archives", type=click.Path(path_type=Path), default=Path("build/archives"), show_default=True,
                 show_envvar=True, help="Folder of .mar files, as `fount pack` writes them."),
    click.option("--state-dir", type=click.Path(path_type=Path), default=_STATE, show_default=True, show_envvar=True,
                 help="Folder where workers keep what they measured."),
    click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, show_envvar=True,
                 help="Worker processes a model version."),
    click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, show_envvar=True,
                 help="Torch threads a worker process."),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
                 show_envvar=True, help="What workers compute in, where the card allows it."),
)  # fmt: skip


@click.command(epilog="Example: fount serve --archives build/archives --port 50051")
@_listen
@_torchserve
def serve(
    host: str, port: int, http_port: int, require: tuple[str, ...], default_version: tuple[str, ...], drain: float,
    log_level: str, archives: Path, state_dir: Path, workers: int, threads: int, precision: str,
) -> None:  # fmt: skip
    """Serve archives: a TorchServe of its own and the gateway, until Ctrl-C."""
    config = _config(host, port, http_port, require, default_version, drain)
    torchserve = TorchServeConfig(
        archives=archives, state=state_dir.expanduser(), workers=workers, threads=threads, precision=precision
    )
    _run(log_level, lambda: _serve(EmbeddedPool(torchserve), config, _say_ready))


@click.command(
    epilog="Example: fount gateway --torchserve worker-1:7070/7071 --torchserve worker-2:7070/7071 --host 0.0.0.0"
)
@click.option("--torchserve", multiple=True, required=True, metavar="HOST:INFERENCE/MANAGEMENT", show_envvar=True,
              help="A TorchServe's gRPC ports. Repeatable.")  # fmt: skip
@_listen
def gateway(
    torchserve: tuple[str, ...], host: str, port: int, http_port: int, require: tuple[str, ...],
    default_version: tuple[str, ...], drain: float, log_level: str,
) -> None:  # fmt: skip
    """Run the gateway alone, in front of TorchServe processes that run elsewhere."""
    config = _config(host, port, http_port, require, default_version, drain)
    addresses = [_address(each) for each in torchserve]
    _run(log_level, lambda: _serve(TorchServePool(addresses), config, _say_listening, must_be_ready=False))


@click.command(epilog="Example: fount demo --archives build/archives --out demo")
@_torchserve
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, show_envvar=True,
              help="Folder for the pictures.")  # fmt: skip
def demo(archives: Path, state_dir: Path, workers: int, threads: int, precision: str, out: Path) -> None:
    """Serve on free loopback ports, draw every class of every model, and stop."""
    torchserve = TorchServeConfig(
        archives=archives, state=state_dir.expanduser(), workers=workers, threads=threads, precision=precision
    )
    _run("warning", lambda: _demo(torchserve, out))


async def _demo(torchserve: TorchServeConfig, out: Path) -> None:
    from service.demo import demonstrate, rows_to_table

    pool = EmbeddedPool(torchserve)
    running = Gateway(pool, GatewayConfig(port=0, http_port=0))
    click.echo("starting TorchServe and the gateway …", err=True)
    try:
        await running.start()
        await _wait_settled(running)
        rows = await demonstrate(f"127.0.0.1:{running.port}", running.catalog, pool, out)
    finally:
        await running.stop()
    if not rows:
        raise SetupError("no generator became ready; nothing was drawn")
    click.echo(rows_to_table(rows))


async def _serve(
    pool: WorkerPool, config: GatewayConfig, say: Callable[[Gateway], None], *, must_be_ready: bool = True
) -> None:
    running = Gateway(pool, config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    try:
        await _first(stop, running.start())
        if must_be_ready and not stop.is_set():
            click.echo("loading models …", err=True)
            await _first(stop, _wait_settled(running))
        if not stop.is_set():
            say(running)
        await stop.wait()
        click.echo("draining …", err=True)
    finally:
        await running.stop()


async def _first(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Do the work, unless a stop is asked for first."""
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.wait([doing])
    elif error := doing.exception():
        raise error


async def _wait_settled(running: Gateway) -> None:
    """Wait until every model is ready or known not to be, and the gateway is ready."""
    await running.wait_settled(_READY_S)
    for entry in running.catalog.entries():
        if not entry.ready:
            click.echo(f"warning: {entry.name} {entry.version} is not served: {entry.reason}", err=True)
    await running.wait_ready(1.0)


def _say_ready(running: Gateway) -> None:
    server = f"127.0.0.1:{running.port}"
    option = "" if running.port == 50051 else f" --server {server}"
    _say_listening(running)
    click.echo("Try next, in another terminal:")
    click.echo(f"  fount models{option}")
    for model in _generators(running)[:1]:
        label = f" --label {model.labels[-1]}" if model.labels else ""
        click.echo(f"  fount sample {model.key.name}{label} --count 16 --seed 1 --out samples.png{option}")
    click.echo(f"  curl -s http://127.0.0.1:{running.http_port}/metrics | grep fount_samples")
    click.echo("Ctrl-C stops everything.")


def _generators(running: Gateway) -> list[ServedModel]:
    """What can be sampled, conditional ones first."""
    models = [entry.model for entry in running.catalog.entries() if entry.ready and entry.model]
    return sorted((each for each in models if Operation.SAMPLE in each.operations), key=lambda each: not each.labels)


def _say_listening(running: Gateway) -> None:
    click.echo(f"Fount serves gRPC on port {running.port}; /metrics, /livez and /readyz on port {running.http_port}.")


def _config(
    host: str, port: int, http_port: int, require: tuple[str, ...], default_version: tuple[str, ...], drain: float
) -> GatewayConfig:
    versions = {}
    for each in default_version:
        name, equals, version = each.partition("=")
        if not (name and equals and version):
            raise click.BadParameter(f"{each!r} is not MODEL=VERSION", param_hint="--default-version")
        versions[name] = version
    if host not in _LOOPBACK:
        click.echo(f"warning: {host} is not loopback, and every caller gets every grant; "
                   "keep it on a private network", err=True)  # fmt: skip
    try:
        return GatewayConfig(
            host=host, port=port, http_port=http_port, required_models=frozenset(require), default_versions=versions,
            drain_grace_s=drain,
        )  # fmt: skip
    except SetupError as error:
        raise click.UsageError(str(error)) from error


def _address(text: str) -> Address:
    inference, slash, management = text.partition("/")
    host, colon, port = inference.rpartition(":")
    if not (slash and colon and host and port.isdecimal() and management.isdecimal()):
        raise click.BadParameter(f"{text!r} is not HOST:INFERENCE/MANAGEMENT, as in 127.0.0.1:7070/7071",
                                 param_hint="--torchserve")  # fmt: skip
    return Address(inference=inference, management=f"{host}:{management}")


def _run(log_level: str, main: Callable[[], Awaitable[None]]) -> None:
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def run() -> None:
        await main()

    try:
        asyncio.run(run())
    except SetupError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
