"""The gateway's commands: `fount serve`, `fount gateway`, `fount demo`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from service.cli.options import gateway_config, gateway_options
from service.cli.worker_options import embedded_pool, worker_options
from service.config import GatewayConfig
from service.domain import Operation, ServedModel
from service.errors import SetupError
from service.gateway import Gateway
from service.workers import WorkerPool
from service.workers.torchserve.channel import Address
from service.workers.torchserve.embedded import EmbeddedPool
from service.workers.torchserve.pool import TorchServePool

__all__ = ["demo", "gateway", "serve"]

_READY_S = 180.0  # longer than a pool takes to call a model hopeless, so that one such does not end the others


@click.command(epilog="\b\nExample:\n  fount serve --model-store model_store\n"
                      "  fount serve --archives build/archives --port 50051")  # fmt: skip
@gateway_options
@worker_options
@click.pass_context
def serve(context: click.Context, /, **_: object) -> None:
    """Serve archives, or a model store: a TorchServe of its own and the gateway, until Ctrl-C."""
    config, pool = gateway_config(context), embedded_pool(context)
    _run(lambda: _serve(pool, config, _say_ready))


@click.command(epilog="\b\nExample:\n  fount gateway --torchserve worker-1:7070/7071 --torchserve worker-2:7070/7071")
@click.option("--torchserve", multiple=True, required=True, metavar="HOST:INFERENCE/MANAGEMENT", show_envvar=True,
              help="A TorchServe's gRPC ports. Repeatable.")  # fmt: skip
@click.option("--token-file", multiple=True, type=click.Path(path_type=Path), show_envvar=True,
              help="A TorchServe's key_file.json, one for each --torchserve in the same order; none when its "
                   "token authorisation is off.")  # fmt: skip
@gateway_options
@click.pass_context
def gateway(context: click.Context, /, torchserve: tuple[str, ...], token_file: tuple[Path, ...], **_: object) -> None:
    """Run the gateway alone, in front of TorchServe processes that run elsewhere."""
    if token_file and len(token_file) != len(torchserve):
        problem = f"give one for each --torchserve: {len(torchserve)}, not {len(token_file)}"
        raise click.BadParameter(problem, param_hint="--token-file")
    files = token_file or (None,) * len(torchserve)
    addresses = [_address(each, file) for each, file in zip(torchserve, files, strict=True)]
    config = gateway_config(context)
    _run(lambda: _serve(TorchServePool(addresses), config, _say_listening, must_be_ready=False))


@click.command(epilog="Example: fount demo --archives build/archives --out demo")
@worker_options
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, show_envvar=True,
              help="Folder for the pictures.")  # fmt: skip
@click.pass_context
def demo(context: click.Context, /, out: Path, **_: object) -> None:
    """Serve on free loopback ports, draw every class of every model, and stop."""
    pool = embedded_pool(context)
    _run(lambda: _stoppable(lambda stop: _first(stop, _demo(pool, out))))


async def _demo(pool: EmbeddedPool, out: Path) -> None:
    from service.cli.demo import demonstrate, rows_to_table

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

    async def until(stop: asyncio.Event) -> None:
        click.echo("starting …", err=True)
        await _first(stop, running.start())
        if must_be_ready and not stop.is_set():
            click.echo("loading models …", err=True)
            await _first(stop, _wait_settled(running))
        if not stop.is_set():
            say(running)
        await stop.wait()
        click.echo("draining …", err=True)

    try:
        await _stoppable(until)
    finally:
        await running.stop()


async def _stoppable(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Do work that ends when its event is set, which Ctrl-C, a stop by the system or a closed terminal do."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:  # nohup: the terminal may close
            loop.add_signal_handler(each, stop.set)
    await work(stop)


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
        if running.evaluates:
            click.echo(f"  fount evaluate {model.key.name} --count 1000 --report report.html{option}")
    click.echo(f"  curl -s http://127.0.0.1:{running.http_port}/metrics | grep fount_samples")
    click.echo("Ctrl-C stops everything.")


def _generators(running: Gateway) -> list[ServedModel]:
    """What can be sampled, conditional ones first."""
    models = [entry.model for entry in running.catalog.entries() if entry.ready and entry.model]
    return sorted((each for each in models if Operation.SAMPLE in each.operations), key=lambda each: not each.labels)


def _say_listening(running: Gateway) -> None:
    click.echo(f"Fount serves gRPC on port {running.port}; /metrics, /livez and /readyz on port {running.http_port}.")


def _address(text: str, token_file: Path | None) -> Address:
    inference, slash, management = text.partition("/")
    host, colon, port = inference.rpartition(":")
    if not (slash and colon and host and port.isdecimal() and management.isdecimal()):
        raise click.BadParameter(f"{text!r} is not HOST:INFERENCE/MANAGEMENT, as in 127.0.0.1:7070/7071",
                                 param_hint="--torchserve")  # fmt: skip
    return Address(inference=inference, management=f"{host}:{management}", token_file=token_file)


def _run(main: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await main()

    try:
        asyncio.run(run())
    except SetupError as error:
        raise click.ClickException(str(error)) from error
