"""The commands `fount serve`, `fount gateway` and `fount demo`."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from fount.client.target import server_target
from fount.errors import InvalidRequest
from service.cli.demo import demonstrate, rows_to_table
from service.cli.loading import FEW_MODELS
from service.cli.options import direct_calls_option, embedded_pool, gateway_config, gateway_options, worker_options
from service.cli.signals import stop_event
from service.config import GatewayConfig
from service.domain import ModelState, Operation
from service.errors import SetupError
from service.gateway import Gateway
from service.workers import WorkerPool
from service.workers.torchserve.channel import Address
from service.workers.torchserve.embedded import EmbeddedPool
from service.workers.torchserve.on_demand import OnDemandPool
from service.workers.torchserve.pool import TorchServePool

__all__ = ["demo", "gateway", "serve"]

_READY_S = 180.0  # longer than a pool waits for a model to load, so that one broken model does not end the others


@click.command(epilog="\b\nExample:\n  fount serve --model-store model_store\n"
                      "  fount serve --archives build/archives --port 50051")  # fmt: skip
@gateway_options
@worker_options
@click.pass_context
def serve(context: click.Context, /, **_: object) -> None:
    """Serve archives or a model store: run TorchServe and the gateway until Ctrl-C."""
    config, pool = gateway_config(context), embedded_pool(context)
    _run(_serve(lambda: pool, config, wait_for_models=True))


@click.command(epilog="\b\nExample:\n  fount gateway --torchserve worker-1:7070/7071 --torchserve worker-2:7070/7071")
@click.option("--torchserve", multiple=True, required=True, metavar="HOST:INFERENCE/MANAGEMENT", show_envvar=True,
              help="A TorchServe's gRPC ports. Repeatable.")  # fmt: skip
@click.option("--token-file", multiple=True, type=click.Path(path_type=Path), show_envvar=True,
              help="A TorchServe's key_file.json, one for each --torchserve in the same order; none when its "
                   "token authorisation is off.")  # fmt: skip
@direct_calls_option
@gateway_options
@click.pass_context
def gateway(
    context: click.Context,
    /,
    torchserve: tuple[str, ...],
    token_file: tuple[Path, ...],
    direct_calls: bool,
    **_: object,
) -> None:
    """Run the gateway alone, for TorchServe processes that run elsewhere."""
    if token_file and len(token_file) != len(torchserve):
        problem = f"give one for each --torchserve: {len(torchserve)}, not {len(token_file)}"
        raise click.BadParameter(problem, param_hint="--token-file")
    files = token_file or (None,) * len(torchserve)
    addresses = [_address(each, file) for each, file in zip(torchserve, files, strict=True)]
    config = gateway_config(context)
    _run(_serve(lambda: TorchServePool(addresses, direct=direct_calls), config, wait_for_models=False))


@click.command(epilog="Example: fount demo --archives build/archives --out demo")
@worker_options
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, show_envvar=True,
              help="Folder for the images.")  # fmt: skip
@click.pass_context
def demo(context: click.Context, /, out: Path, **_: object) -> None:
    """Serve on free loopback ports, draw every class of every model, and stop."""
    _run(_demo(embedded_pool(context, default=1), out))  # its start takes longer than what it draws


def _run(command: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(command)
    except SetupError as error:
        raise click.ClickException(str(error)) from error


async def _serve(make_pool: Callable[[], WorkerPool], config: GatewayConfig, *, wait_for_models: bool) -> None:
    running, stop = Gateway(make_pool(), config), stop_event()  # a pool needs the running event loop
    try:
        click.echo("starting …", err=True)
        await _run_until(stop, running.start())
        if wait_for_models and not stop.is_set():
            is_on_demand = isinstance(running.pool, OnDemandPool)
            what = "required models" if is_on_demand else f"all models (up to {FEW_MODELS} are; see --load)"
            click.echo(f"loading {what} …", err=True)
            await _run_until(stop, _wait_for_models(running))
        if not stop.is_set():
            click.echo(f"Fount serves gRPC on port {running.port}; /metrics, /livez and /readyz on port "
                       f"{running.http_port}.")  # fmt: skip
            if wait_for_models:
                _print_examples(running)
        await stop.wait()
        click.echo("draining …", err=True)
    finally:
        await running.stop()


async def _demo(pool: EmbeddedPool, out: Path) -> None:
    await _run_until(stop_event(), _run_demo(pool, out))


async def _run_demo(pool: EmbeddedPool, out: Path) -> None:
    running = Gateway(pool, GatewayConfig(port=0, http_port=0))
    click.echo("starting TorchServe and the gateway …", err=True)
    try:
        await running.start()
        await _wait_for_models(running)
        rows = await demonstrate(f"127.0.0.1:{running.port}", running.catalog, pool, out)
    finally:
        await running.stop()
    if not rows:
        raise SetupError("no generator became ready; nothing was drawn")
    click.echo(rows_to_table(rows))


async def _run_until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run the work, and cancel it when the event is set first."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait([working])
    elif error := working.exception():
        raise error


async def _wait_for_models(running: Gateway) -> None:
    """Wait until no model is loading any more and the gateway is ready; warn of models that are not served."""
    await running.wait_loaded(_READY_S)
    for entry in running.catalog.entries():
        if not entry.ready and entry.state is not ModelState.COLD:
            click.echo(f"warning: {entry.name} {entry.version} is not served: {entry.reason}", err=True)
    await running.wait_ready(1.0)


def _print_examples(running: Gateway) -> None:
    """Print commands to try next, with a conditional generator if there is one."""
    option = "" if running.port == 50051 else f" --server 127.0.0.1:{running.port}"
    click.echo("Try next, in another terminal:")
    click.echo(f"  fount models{option}")
    entries = [each for each in running.catalog.entries() if each.ready or each.state is ModelState.COLD]
    generators = [model for model in (each.model for each in entries) if model and Operation.SAMPLE in model.operations]
    for model in sorted(generators, key=lambda each: not each.labels)[:1]:
        label = f" --label {shlex.quote(model.labels[-1])}" if model.labels else ""
        click.echo(f"  fount sample {shlex.quote(model.key.name)}{label} --count 16 --seed 1 --out samples.png{option}")
        if running.evaluates:
            click.echo(f"  fount evaluate {shlex.quote(model.key.name)} --count 1000 --report report.html{option}")
    click.echo(f"  curl -s http://127.0.0.1:{running.http_port}/metrics | grep fount_samples")
    click.echo("Ctrl-C stops everything.")


def _address(text: str, token_file: Path | None) -> Address:
    inference, slash, management = text.partition("/")
    host, colon, port = inference.rpartition(":")
    if not (slash and colon and host and port.isdecimal() and management.isdecimal()):
        raise click.BadParameter(f"{text!r} is not HOST:INFERENCE/MANAGEMENT, as in 127.0.0.1:7070/7071",
                                 param_hint="--torchserve")  # fmt: skip
    try:
        inference, management = (server_target(f"{host}:{each}", tls=False) for each in (port, management))
    except InvalidRequest as error:
        raise click.BadParameter(str(error), param_hint="--torchserve") from error
    return Address(inference=inference, management=management, token_file=token_file)
