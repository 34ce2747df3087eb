"""Loading: from an unpacked archive to a model that may serve, or to the reason why it may not.

In order: the folder is the archive that was packed; the model is built and takes its weights; it is the digest's; the
numerics get their name; the profile says which shapes may run; the golden samples come out as recorded. Nothing is
raised: a worker that cannot serve stays up and says why, because one that dies is started again for ever. Only what may
be otherwise next time, memory or a device, is tried again, and then makes way for a new process.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from torch import nn

from fount.archive import ArchiveContents, ArchiveError, verify_folder
from handlers.cards.card import Card, CardError, load_card
from handlers.cards.digests import model_digest
from handlers.execution.batch_plan import BatchTimes
from handlers.execution.compiling import CompileError, compile_called, translate_compile_errors
from handlers.execution.errors import describe_error, exit_process, is_device_lost, is_out_of_memory
from handlers.execution.network import FamilyBuilder, Network, Operation, WrongOutputError, build_network
from handlers.execution.numerics import Numerics, configure_torch, read_numerics
from handlers.loading.build import BuildError, build_module, is_custom, source_of
from handlers.loading.memory import keep_freed_memory
from handlers.loading.weights import WeightsError
from handlers.models import UnknownFamilyError
from handlers.settings import Settings, SettingsError, settings_from_environment
from handlers.state import State
from handlers.verification.golden import GoldenError, check_golden
from handlers.verification.profile import Profile, ProfileError, load_or_measure_profile, run_probe

__all__ = ["Engine", "LoadError", "LoadedModel", "load_model"]

_LOG = logging.getLogger(__name__)
_TRIES, _DELAY_S = 3, 2.0


class LoadError(Exception):
    """The parts of an archive do not belong together, or not to these settings. Pack again, or change the settings."""


_EXPECTED = (
    ArchiveError, BuildError, CardError, CompileError, GoldenError, LoadError, ProfileError, SettingsError,
    UnknownFamilyError, WeightsError, WrongOutputError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs batches: only there when every check was passed.

    Attributes:
        network: the loaded model.
        profile: the shapes it may run.
        times: how long each of them takes now, by operation.
    """

    network: Network
    profile: Profile
    times: Mapping[Operation, BatchTimes]

    @classmethod
    def of(cls, network: Network, profile: Profile) -> Self:
        """Begin with the times that were measured."""
        operations = network.card.operations
        shares = {size: profile.seconds_per_batch[size] / len(operations) for size in profile.exec_batch_sizes}
        times = {operation: BatchTimes(measured=shares) for operation in operations}
        return cls(network=network, profile=profile, times=times)


@dataclass(kw_only=True)
class LoadedModel:
    """How far loading came.

    Attributes:
        contents: what the archive says of itself; None when it is not one.
        card: the card; None when it could not be read.
        numerics: what it runs on; None when that was not reached.
        engine: what runs batches; None when it cannot serve.
        golden: how far golden samples are from the recorded ones; "" when they were not drawn.
        reason: why it cannot serve, one sentence; "" when it can.
    """

    contents: ArchiveContents | None = None
    card: Card | None = None
    numerics: Numerics | None = None
    engine: Engine | None = None
    golden: str = ""
    reason: str = ""


def load_model(
    folder: Path, environment: Mapping[str, str], gpu_id: int | None, build_family: FamilyBuilder
) -> LoadedModel:
    """Load an unpacked archive. The process ends when there is no memory for it, three times, or its device is lost.

    Args:
        folder: where it was unpacked.
        environment: `FOUNT_` settings, see `settings_from_environment`.
        gpu_id: the CUDA device assigned; None is the CPU.
        build_family: builds a family's module from its name and configuration.
    """
    for tries_left in reversed(range(_TRIES)):
        model = _try_to_load(folder, environment, gpu_id, build_family)
        if model is not None:
            return model
        if tries_left:
            time.sleep(_DELAY_S)
    exit_process("the model could not be loaded for want of memory")
    raise AssertionError("the process has ended")


def _try_to_load(
    folder: Path, environment: Mapping[str, str], gpu_id: int | None, build_family: FamilyBuilder
) -> LoadedModel | None:
    """Load once; None when memory ran out, and everything half-loaded has been let go."""
    model = LoadedModel()
    try:
        _load(model, folder, environment, gpu_id, build_family)
    except _EXPECTED as error:
        model.reason = " ".join(str(error).split())
        _LOG.error("the model cannot be served: %s", model.reason)
    except Exception as error:  # noqa: BLE001 - whatever a family raises, the worker stays up to say so
        if is_out_of_memory(error):
            _LOG.warning("not enough memory to load the model", exc_info=error)
            return None
        if is_device_lost(error):
            exit_process(f"the device is lost ({error})")
        model.reason = _tell_failure(error, model.card, folder)
        _LOG.exception("the model cannot be served")
    return model


def _load(
    model: LoadedModel, folder: Path, environment: Mapping[str, str], gpu_id: int | None, build_family: FamilyBuilder
) -> None:
    model.contents = verify_folder(folder)
    model.card = load_card(folder)
    settings = settings_from_environment(environment, gpu_id, model.card.name)
    if settings.precision not in model.card.precisions:
        wrong = f"the precision is to be {settings.precision}, the card allows {', '.join(model.card.precisions)}"
        raise LoadError(f"{wrong}; set FOUNT_WORKER_PRECISION, or the model's entry in a tuned file, to one of those")
    keep_freed_memory()
    configure_torch(settings)
    model.numerics = read_numerics(settings)
    module = _build(model.card, folder, model.contents, build_family)
    network = build_network(model.card, module, settings)
    state = State(folder=settings.state_dir)
    with _compiling(network, settings):
        profile = load_or_measure_profile(network, model.contents.model_digest, model.numerics, state)
        golden, digest = folder / model.card.golden.file, model.contents.model_digest
        model.golden = check_golden(golden, network, profile.exec_batch_sizes, digest, model.numerics, state)
    model.engine = Engine.of(network, profile)
    _LOG.info("model %s %s is ready on %s", model.card.name, model.card.version, model.numerics.id)


@contextmanager
def _compiling(network: Network, settings: Settings) -> Iterator[None]:
    """Have a network compiled, if it is to be, while each of its sizes runs for the first time."""
    if not settings.compiled:
        yield
        return
    cache = settings.state_dir / "compiled" if settings.state_dir else None
    with translate_compile_errors():
        inductor = compile_called(network.module, partial(run_probe, network), cache)
        yield
        if not inductor.graphs:
            raise CompileError("torch could compile nothing of the model; set compiled to 0")


def _build(card: Card, folder: Path, contents: ArchiveContents, build_family: FamilyBuilder) -> nn.Module:
    module = build_module(card, folder, build_family)
    source = source_of(card, folder) if is_custom(card) else Path(inspect.getfile(type(module)))
    found = model_digest(card, folder, source)
    if found != contents.model_digest:
        raise LoadError(f"card, weights and family source give {found}, the archive says {contents.model_digest}")
    return module


def _tell_failure(error: Exception, card: Card | None, folder: Path) -> str:
    """Say what failed; of a model of one's own, its author wants to know where."""
    if card is None or not is_custom(card):
        return f"loading failed with {type(error).__name__}; the worker's log has the traceback"
    remedy = "mend the model; it must take z, and the label if it has classes, of any number of rows"
    return f"the model failed when it was first run: {describe_error(error, source_of(card, folder))}; {remedy}"
