"""The options of the service's commands, and the settings made from them.

The command line and its FOUNT_ environment variables enter; a `GatewayConfig` leaves, and for commands that run their
own workers an `EmbeddedPool` that is not started yet.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from fount.files import make_private_folder
from fount.machine import available_bytes, usable_cores
from fount.tuned import TunedError, read_tuned
from service.cli.default_workers import default_workers, format_count
from service.cli.loading import FEW_MODELS, Size, load_limits, loads_on_demand
from service.cli.model_store import PackedStore, format_reason, model_folders, pack_store
from service.config import GatewayConfig
from service.datasets.configuration import configured_datasets
from service.errors import SetupError
from service.telemetry.logs import RepeatLimit
from service.workers.torchserve.embedded import EmbeddedPool
from service.workers.torchserve.launch import TorchServeConfig
from service.workers.torchserve.on_demand import OnDemandPool

__all__ = [
    "archives_options",
    "choose_archives",
    "data_set_option",
    "data_sets_option",
    "direct_calls_option",
    "embedded_pool",
    "gateway_config",
    "gateway_options",
    "log_level_option",
    "worker_options",
]

_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_ARCHIVES, _STORE, _STATE = Path("build/archives"), Path("model_store"), Path("~/.local/state/fount")
_TUNED, _PATH = "workers.yaml", click.Path(path_type=Path)
_MAX_NAMED = 8  # models in one line of output

# Settings with a help text have an option of their own; a few have another name than their setting.
_SETTINGS = {each.name: each for each in fields(GatewayConfig) if each.metadata.get("help")}
_ADDRESSES = ("host", "port", "http_port")
_LIMITS = tuple(name for name in _SETTINGS if name not in _ADDRESSES)
_PARAMETERS = {
    "drain_grace_s": "drain",
    "idle_timeout_s": "idle_timeout",
    "worker_timeout_s": "worker_timeout",
    "worker_wait_s": "worker_wait",
}

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


def _options(*decorators: Decorator[Command]) -> Decorator[Command]:
    """Combine options to one decorator; help lists them in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _option(flag: str, **settings: Any) -> Decorator[Callable[..., Any]]:
    """Make an option whose help has its default and its environment variable."""
    return click.option(flag, show_envvar=True, show_default="default" in settings, **settings)


def _setting(name: str) -> Decorator[Callable[..., Any]]:
    """Make the option of a setting, with its default, bounds and help text."""
    setting = _SETTINGS[name]
    least, above = setting.metadata["least"], setting.metadata["above"]
    kind: Any = type(setting.default)
    if name in ("port", "http_port"):
        kind = click.IntRange(0, 65535)
    elif kind is int:
        kind = click.IntRange(min=least)
    elif kind is float:
        kind = click.FloatRange(min=least if above is None else above, min_open=above is not None)
    flag = f"--{_PARAMETERS.get(name, name).replace('_', '-')}"
    return _option(flag, type=kind, default=setting.default, help=setting.metadata["help"])


def _set_up_logs(context: click.Context, option: click.Parameter, level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(RepeatLimit())


log_level_option = _option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning", expose_value=False,
    is_eager=True, callback=_set_up_logs,
)  # fmt: skip

data_set_option = _option(
    "--data-set", multiple=True, metavar="NAME=PATH",
    help="A data set to augment or to compare with: a folder of IDX, NPZ or Parquet files, one with a folder a class, "
         "an NPZ or a Parquet file. Repeatable; digits and shapes64 are always available.",
)  # fmt: skip

data_sets_option = _option(
    "--data-sets", type=_PATH, metavar="FILE",
    help="Data sets by name, as YAML, each with path and, if wanted, format, classes, group, held_out, size, channels, "
         "background, classifier, licence, max_bytes and policy; see docs/augmentation.md.",
)  # fmt: skip

direct_calls_option = _option(
    "--direct-calls/--no-direct-calls", default=True,
    help="Call worker processes directly where they can be reached; the others, or all, through TorchServe.",
)  # fmt: skip

archives_options = _options(
    _option("--archives", type=_PATH, default=_ARCHIVES, help="Folder of .mar files, as `fount pack` writes them."),
    _option("--model-store", type=_PATH, help="Instead of --archives: folder with one folder a model; each is packed "
                                              "at the start, and served."),
)  # fmt: skip

worker_options = _options(
    archives_options,
    _option("--state-dir", type=_PATH, default=_STATE,
            help="Folder of the workers' measurements and of packed model stores."),
    _option("--workers", type=click.IntRange(1, 64),
            help="Worker processes a model version. Unset: for `fount serve` as many as there are cores and memory, at "
                 "most 8; for `fount demo`, and for models on demand, 1."),
    _option("--threads", type=click.IntRange(1, 256), default=1,
            help="Torch threads a worker process; another number may give other bytes."),
    _option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32",
            help="Precision of the workers; a model whose card forbids it is not served."),
    _option("--load", type=click.Choice(["all", "on-demand"]),
            help="Start the workers of all models at once, or those of each model with its first request. Unset: all "
                 f"of up to {FEW_MODELS} models; more on demand."),
    _option("--max-loaded", type=click.IntRange(min=1), metavar="N",
            help="The most models loaded at once on demand; for another, the one used least recently is stopped. "
                 "Unset: as many as fit into half of the free memory."),
    _option("--memory-budget", type=Size(), metavar="SIZE",
            help="The same as a limit of the memory of all workers together, like 8GiB."),
    _option("--tuned", type=_PATH, metavar="FILE",
            help="Settings of each model from `fount tune`; they take precedence over the three above. Unset: "
                 "workers.yaml in the state folder, when none of the three is given."),
    _option("--worker-env", multiple=True, metavar="NAME",
            help="A variable of this command's environment that workers get as well; * stands for any characters. "
                 "Repeatable. Otherwise they get those of Python, torch, CUDA and Java alone."),
    direct_calls_option,
)  # fmt: skip

gateway_options = _options(
    *map(_setting, _ADDRESSES),
    _option("--require", multiple=True, metavar="MODEL",
            help="A model that must be ready before the gateway is. Repeatable."),
    _option("--default-version", multiple=True, metavar="MODEL=VERSION",
            help="The version that an empty version means; otherwise the newest. Repeatable."),
    data_set_option,
    data_sets_option,
    _option("--ticket-keys", type=_PATH, metavar="FILE",
            help="Keys that sign the tickets of plans, id:hex a line, the first signs; created if missing. "
                 "Gateways that share it accept each other's tickets. Unset: ticket-keys in the state folder of "
                 "`fount serve`; for `fount gateway`, a key that ends with the process."),
    _option("--plans", type=_PATH, metavar="DIR",
            help="Folder where plans are kept; gateways may share it. Unset: plans in the state folder of "
                 "`fount serve`; for `fount gateway`, in memory."),
    _option("--jobs", metavar="URL",
            help="Database of evaluations: sqlite:///PATH, or postgresql://USER@HOST/DATABASE, which gateways and "
                 "runners on several machines share. Empty: evaluations are off. Unset: evaluations.db in the state "
                 "folder of `fount serve`; for `fount gateway`, off. If it contains a password, set it in the "
                 "environment."),
    _option("--runners", type=click.IntRange(0, 64),
            help="Processes that run evaluations, started and stopped with this command; 0: they run elsewhere "
                 "(`fount runner`). Unset: 1 when evaluations are on."),
    *map(_setting, _LIMITS),
    log_level_option,
)  # fmt: skip


def gateway_config(context: click.Context) -> GatewayConfig:
    """Read the gateway's settings from a command's options."""
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
    if given["caller_queue_s"] > given["max_queue_s"]:
        queues = f"--caller-queue-s {given['caller_queue_s']:g} is above --max-queue-s {given['max_queue_s']:g}"
        click.echo(f"warning: {queues}, so one caller can fill the queue of a model; lower it", err=True)
    jobs = _jobs(given)
    try:
        return GatewayConfig(
            **{name: given[_PARAMETERS.get(name, name)] for name in _SETTINGS},
            default_versions=versions,
            required_models=frozenset(given["require"]),
            ticket_keys=_state_path(given, "ticket_keys"),
            plans=_state_path(given, "plans"),
            jobs=jobs,
            runners=_runners(given, jobs),
            runner_options=_runner_options(given),
            datasets=configured_datasets(given["data_set"], given["data_sets"]),
        )
    except SetupError as error:
        raise click.UsageError(str(error)) from error


def _state_folder(given: Mapping[str, Any]) -> Path | None:
    """The state folder of a command that has one."""
    state = given.get("state_dir")
    return Path(state).expanduser() if state else None


def _state_path(given: Mapping[str, Any], name: str) -> Path | None:
    """A path as given, or else in the state folder."""
    if given[name] is not None:
        return Path(given[name]).expanduser()
    state = _state_folder(given)
    return state / name.replace("_", "-") if state else None


def _jobs(given: Mapping[str, Any]) -> str | None:
    """The URL of the database of evaluations; None: they are off."""
    if given["jobs"] is not None:
        return given["jobs"] or None
    state = _state_folder(given)
    return f"sqlite:///{state.absolute() / 'evaluations.db'}" if state else None


def _runners(given: Mapping[str, Any], jobs: str | None) -> int:
    if given["runners"] and not jobs:
        raise click.BadParameter("runners need --jobs, the database of evaluations", param_hint="--runners")
    return int(given["runners"] if given["runners"] is not None else bool(jobs))


def _runner_options(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The command line of runners, except for the gateway's address and the database."""
    options = [part for each in given["data_set"] for part in ("--data-set", each)]
    options += ["--data-sets", str(given["data_sets"])] if given["data_sets"] else []
    state = _state_folder(given)
    return (*options, *(("--work-dir", str(state / "evaluations")) if state else ()))


def embedded_pool(context: click.Context, default: int | None = None) -> EmbeddedPool:
    """Make a pool over an own TorchServe from a command's options.

    Args:
        context: of the command.
        default: the number of workers a model when the options have none; None chooses one for this machine.
    """
    _make_state_folder(context.params["state_dir"].expanduser())
    given, store, tuned = context.params, choose_archives(context), _tuned(context)
    on_demand = loads_on_demand(context, store.archives)
    default = default or (1 if on_demand else None)  # a first request waits for one
    workers = given["workers"] or default or _choose_workers(store.archives, given["threads"], tuned)
    limits = load_limits(context, store.archives, _most_workers(workers, tuned)) if on_demand else None
    config = TorchServeConfig(
        archives=store.archives,
        state=given["state_dir"].expanduser(),
        workers=workers,
        threads=given["threads"],
        precision=given["precision"],
        tuned=tuned,
        direct=given["direct_calls"],
        on_demand=limits is not None,
        worker_env=given["worker_env"],
    )
    if limits is None:
        return EmbeddedPool(config, refused=store.refused)
    return OnDemandPool(config, limits, refused=store.refused, required=frozenset(given.get("require", ())))


def _make_state_folder(folder: Path) -> None:
    """Create the state folder, or close it to other users: it holds keys, plans, and reports with training rows."""
    try:
        wrong = make_private_folder(folder)
    except OSError as error:
        problem = f"{folder} cannot be created: {error.strerror}; name another"
        raise click.BadParameter(problem, param_hint="--state-dir") from error
    if wrong:
        click.echo(f"warning: {wrong}: it holds keys, plans and reports; chmod 700, or name another with --state-dir",
                   err=True)  # fmt: skip


def _most_workers(workers: int, tuned: Path | None) -> int:
    """Return the most workers that a model gets."""
    try:
        settings = read_tuned(tuned).values() if tuned else ()
    except TunedError as error:
        raise click.ClickException(str(error)) from error
    return max([workers, *(each.workers or 1 for each in settings)])


def _choose_workers(archives: Path, threads: int, tuned: Path | None) -> int:
    """Choose a number of workers for this machine, and say so."""
    chosen = default_workers(
        models=max(1, len(list(archives.glob("*.mar")))),
        threads=threads,
        cores=usable_cores(),
        available_bytes=available_bytes(),
    )
    layout = f"{format_count(chosen.workers, 'worker')} x {format_count(threads, 'thread')} a model"
    others = f"; models in {tuned} run as tuned" if tuned else ""
    remedy = "choose with --workers and --threads, or measure with `fount tune`"
    click.echo(f"{layout}: {chosen.reason}; {remedy}{others}", err=True)
    return chosen.workers


def _tuned(context: click.Context) -> Path | None:
    """The file given, or else the one in the state folder if no option that it would replace is given."""
    given = context.params
    if given["tuned"] is not None:
        return Path(given["tuned"]).expanduser()
    sources = {context.get_parameter_source(name) for name in ("workers", "threads", "precision")}
    found = Path(given["state_dir"]).expanduser() / _TUNED
    return found if found.is_file() and sources == {ParameterSource.DEFAULT} else None


def choose_archives(context: click.Context) -> PackedStore:
    """Find the archives that a command's options name; a model store is packed, which takes seconds a model.

    Raises:
        click.UsageError: both options are given.
        click.ClickException: no model of the store can be packed, or no option is given and there are no archives.
    """
    archives, store = context.params["archives"], context.params["model_store"]
    is_default = context.get_parameter_source("archives") is ParameterSource.DEFAULT
    if store is None:
        if is_default and not archives.is_dir() and _STORE.is_dir():
            raise click.ClickException(
                f"{archives} is not a folder, but {_STORE} is: serve its models with --model-store {_STORE}, "
                f"or pack them first with `fount pack --all --out {shlex.quote(str(archives))}`"
            )
        if is_default and not archives.is_dir():
            raise click.ClickException(
                f"neither {archives} nor {_STORE} is a folder here: name a folder with one folder a model by "
                "--model-store, or a folder of .mar files, as `fount pack` writes them, by --archives"
            )
        return PackedStore(archives=archives)
    if not is_default:
        raise click.UsageError("--archives and --model-store exclude each other, also when they are set in the "
                               "environment; give one.")  # fmt: skip
    try:
        return _pack(store, context.params["state_dir"].expanduser())
    except SetupError as error:
        raise click.ClickException(str(error)) from error


def _pack(store: Path, state: Path) -> PackedStore:
    names = [folder.name for folder in model_folders(store)]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    click.echo(f"packing {', '.join(names[:_MAX_NAMED])}{more} of {store} …", err=True)
    started_s = time.perf_counter()
    packed = pack_store(store, state)
    count = len(list(packed.archives.glob("*.mar")))
    click.echo(f"packed {count} of {len(names)} models in {time.perf_counter() - started_s:.1f} s", err=True)
    for folder, reason in packed.nameless.items():  # the catalog lists the others
        click.echo(f"warning: not served: {format_reason(folder, reason)}", err=True)
    return packed
