"""The options of every command that runs a gateway, and the settings they make.

What is on the command line, or in its FOUNT_ twins, enters; a `GatewayConfig` leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from service.cli.dataset_options import data_set_option, data_sets_option
from service.cli.log_option import log_level_option
from service.config import GatewayConfig
from service.datasets.configuration import configured_datasets
from service.errors import SetupError

__all__ = ["Command", "gateway_config", "gateway_options", "options"]

_PORT, _POSITIVE = click.IntRange(0, 65535), click.IntRange(min=1)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")

Command = TypeVar("Command", bound=Callable[..., None])


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Join options that several commands have to one decorator; they are listed in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


gateway_options = options(
    click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="Address to listen on."),
    click.option("--port", type=_PORT, default=50051, show_default=True, show_envvar=True,
                 help="gRPC port; 0 takes a free one."),
    click.option("--http-port", type=_PORT, default=8000, show_default=True, show_envvar=True,
                 help="Port of /metrics, /livez and /readyz; 0 takes a free one."),
    click.option("--require", multiple=True, metavar="MODEL", show_envvar=True,
                 help="A model that must be ready before the gateway is. Repeatable."),
    click.option("--default-version", multiple=True, metavar="MODEL=VERSION", show_envvar=True,
                 help="What an empty version means; otherwise the newest. Repeatable."),
    data_set_option,
    data_sets_option,
    click.option("--ticket-keys", type=click.Path(path_type=Path), metavar="FILE", show_envvar=True,
                 help="Keys that sign the tickets of plans, id:hex a line, the first signs; made if it is not there. "
                      "Gateways that share it serve each other's plans. Unset: ticket-keys in the state folder of "
                      "`fount serve`; of `fount gateway`, a key that ends with the process."),
    click.option("--plans", type=click.Path(path_type=Path), metavar="DIR", show_envvar=True,
                 help="Folder where plans are kept; gateways may share it. Unset: plans in the state folder of "
                      "`fount serve`; of `fount gateway`, in memory."),
    click.option("--jobs", metavar="URL", show_envvar=True,
                 help="Database of evaluations: sqlite:///PATH, or postgresql://USER@HOST/DATABASE, which gateways and "
                      "runners on several machines share. Empty: evaluations are off. Unset: evaluations.db in the "
                      "state folder of `fount serve`; of `fount gateway`, off. It may hold a password: give it by the "
                      "environment then."),
    click.option("--runners", type=click.IntRange(0, 64), show_envvar=True,
                 help="Processes that work on evaluations, started and stopped with this command; 0: they run "
                      "elsewhere (`fount runner`). Unset: 1 where evaluations are on."),
    click.option("--max-evaluation-samples", type=click.IntRange(min=100), default=50_000, show_default=True,
                 show_envvar=True, help="Most samples of one evaluation."),
    click.option("--keep-reports-days", type=_ABOVE_0, default=30.0, show_default=True, show_envvar=True,
                 help="How long evaluations and their reports are kept once they have ended."),
    click.option("--report-bytes", type=_POSITIVE, default=1 << 30, show_default=True, show_envvar=True,
                 help="Most bytes of reports kept; the oldest go first."),
    click.option("--drain", type=click.FloatRange(min=0), default=10.0, show_default=True, show_envvar=True,
                 help="Seconds running streams may go on after a stop was asked for."),
    click.option("--max-streams", type=_POSITIVE, default=1024, show_default=True, show_envvar=True,
                 help="Sample streams open at once; more are refused with a time to retry."),
    click.option("--max-batch-ms", type=_ABOVE_0, default=20.0, show_default=True, show_envvar=True,
                 help="How long what is before an interactive request may keep a worker."),
    click.option("--bulk-batch-ms", type=_ABOVE_0, default=200.0, show_default=True, show_envvar=True,
                 help="How long one worker call may take when no interactive request is about."),
    click.option("--max-queue-s", type=_ABOVE_0, default=60.0, show_default=True, show_envvar=True,
                 help="Most work waiting for a model, in seconds until its workers are through with it."),
    click.option("--caller-queue-s", type=_ABOVE_0, default=600.0, show_default=True, show_envvar=True,
                 help="Most work waiting for one caller, in seconds of one worker."),
    click.option("--total-queue-s", type=_ABOVE_0, default=600.0, show_default=True, show_envvar=True,
                 help="Most work waiting, in seconds of one worker."),
    click.option("--window-bytes", type=_POSITIVE, default=4 << 20, show_default=True, show_envvar=True,
                 help="Samples of one stream made but not yet taken by its client."),
    click.option("--max-unread-bytes", type=_POSITIVE, default=256 << 20, show_default=True, show_envvar=True,
                 help="The same for all streams together: half is shared, half is a floor under each."),
    click.option("--worker-timeout", type=_ABOVE_0, default=100.0, show_default=True, show_envvar=True,
                 help="Seconds a worker call may take."),
    click.option("--worker-wait", type=_ABOVE_0, default=30.0, show_default=True, show_envvar=True,
                 help="Seconds running streams wait for workers that went away."),
    log_level_option,
)  # fmt: skip


def gateway_config(context: click.Context) -> GatewayConfig:
    """The gateway's settings among a command's options."""
    given = context.params
    versions = {}
    for each in given["default_version"]:
        name, equals, version = each.partition("=")
        if not (name and equals and version):
            raise click.BadParameter(f"{each!r} is not MODEL=VERSION", param_hint="--default-version")
        versions[name] = version
    if given["host"] not in _LOOPBACK:
        click.echo(f"warning: {given['host']} is not loopback, and every caller gets every grant; "
                   "keep it on a private network", err=True)  # fmt: skip
    jobs = _jobs(given)
    try:
        return GatewayConfig(
            host=given["host"],
            port=given["port"],
            http_port=given["http_port"],
            default_versions=versions,
            required_models=frozenset(given["require"]),
            max_streams=given["max_streams"],
            max_batch_ms=given["max_batch_ms"],
            bulk_batch_ms=given["bulk_batch_ms"],
            max_queue_s=given["max_queue_s"],
            caller_queue_s=given["caller_queue_s"],
            total_queue_s=given["total_queue_s"],
            window_bytes=given["window_bytes"],
            max_unread_bytes=given["max_unread_bytes"],
            worker_timeout_s=given["worker_timeout"],
            worker_wait_s=given["worker_wait"],
            drain_grace_s=given["drain"],
            ticket_keys=_kept(given, "ticket_keys"),
            plans=_kept(given, "plans"),
            jobs=jobs,
            runners=_runners(given, jobs),
            runner_options=_runner_options(given),
            max_evaluation_samples=given["max_evaluation_samples"],
            keep_reports_days=given["keep_reports_days"],
            report_bytes=given["report_bytes"],
            datasets=configured_datasets(given["data_set"], given["data_sets"]),
        )
    except SetupError as error:
        raise click.UsageError(str(error)) from error


def _jobs(given: Mapping[str, Any]) -> str | None:
    """The URL of the database of evaluations; None: they are off."""
    if given["jobs"] is not None:
        return given["jobs"] or None
    state = given.get("state_dir")
    return f"sqlite:///{Path(state).expanduser().absolute() / 'evaluations.db'}" if state else None


def _runners(given: Mapping[str, Any], jobs: str | None) -> int:
    if given["runners"] and not jobs:
        raise click.BadParameter("runners need --jobs, the database of evaluations", param_hint="--runners")
    return int(given["runners"] if given["runners"] is not None else bool(jobs))


def _runner_options(given: Mapping[str, Any]) -> tuple[str, ...]:
    """What runners are told beside the gateway's address and, by the environment, the database."""
    options = [part for each in given["data_set"] for part in ("--data-set", each)]
    options += ["--data-sets", str(given["data_sets"])] if given["data_sets"] else []
    state = given.get("state_dir")
    return (*options, *(("--work-dir", str(Path(state).expanduser() / "evaluations")) if state else ()))


def _kept(given: Mapping[str, Any], name: str) -> Path | None:
    """A place to keep something: as given, or in the state folder of a command that has one."""
    if given[name] is not None:
        return Path(given[name]).expanduser()
    state = given.get("state_dir")
    return Path(state).expanduser() / name.replace("_", "-") if state else None
