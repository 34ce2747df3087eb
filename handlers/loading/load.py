"""Load an unpacked archive into a model that may serve, or the reason why it may not.

In order: verify the folder against the archive's digests; build the model with its weights; compare its digest;
determine the numerics; measure or read the profile; reproduce the golden samples. Nothing is raised: a worker that
cannot serve stays up and reports why, because one that dies is restarted forever. Only transient causes, memory or a
device, are retried, and then the process exits for a new one.
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

from fount.archive import ArchiveContents, ArchiveError, verify_folder
from handlers.cards.card import Card, CardError, load_card
from handlers.cards.digests import model_digest, source_of
from handlers.execution.batch_plan import BatchTimes
from handlers.execution.compiling import CompileError, compile_called, translate_compile_errors
from handlers.execution.errors import describe_error, exit_process, is_device_lost, is_out_of_memory, remedy_for
from handlers.execution.network import FamilyBuilder, Network, Operation, WrongOutputError, build_network
from handlers.execution.numerics import Numerics, configure_torch, read_numerics
from handlers.loading.build import BuildError, build_module, is_custom
from handlers.loading.memory import keep_freed_memory
from handlers.loading.weights import WeightsError
from handlers.models import PROGRAM_FAMILIES, UnknownFamilyError
from handlers.settings import Settings, SettingsError, settings_from_environment
from handlers.state import State
from handlers.verification.golden import GoldenError, check_golden
from handlers.verification.profile import (
    Profile,
    ProfileError,
    load_or_measure_profile,
    pad_before_compiling,
    run_probe,
)

__all__ = ["Engine", "LoadError", "LoadedModel", "load_model"]

_LOG = logging.getLogger(__name__)
_TRIES, _DELAY_S = 3, 2.0


class LoadError(Exception):
    """The parts of an archive do not match each other or the settings. Pack again, or change the settings."""


_EXPECTED = (
    ArchiveError, BuildError, CardError, CompileError, GoldenError, LoadError, ProfileError, SettingsError,
    UnknownFamilyError, WeightsError, WrongOutputError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A model that passed every check and may serve.

    Attributes:
        network: the loaded model.
        profile: the batch sizes it may run.
        times: the current time of each, by operation.
    """

    network: Network
    profile: Profile
    times: Mapping[Operation, BatchTimes]


@dataclass(kw_only=True)
class LoadedModel:
    """The result of loading, as far as it succeeded.

    Attributes:
        contents: the archive's contents file; None when it is no valid archive.
        card: the card; None when it could not be read.
        numerics: of this process; None when loading failed earlier.
        engine: the model; None when it cannot serve.
        golden: the difference of golden samples from the recorded ones; "" when they were not drawn.
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
    """Load an unpacked archive. The process exits when memory runs out three times, or its device is lost.

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
    exit_process("there was not enough memory to load the model")
    raise AssertionError("unreachable: the process has exited")


def _try_to_load(
    folder: Path, environment: Mapping[str, str], gpu_id: int | None, build_family: FamilyBuilder
) -> LoadedModel | None:
    """Load once; None when memory ran out, with nothing of the attempt kept."""
    model = LoadedModel()
    try:
        _load(model, folder, environment, gpu_id, build_family)
    except _EXPECTED as error:
        model.reason = " ".join(str(error).split())
        _LOG.error("the model cannot be served: %s", model.reason)
    except Exception as error:  # noqa: BLE001 - whatever a family raises, the worker stays up to report it
        if is_out_of_memory(error):
            _LOG.warning("not enough memory to load the model", exc_info=error)
            return None
        if is_device_lost(error):
            exit_process(f"the device is lost ({error})")
        model.reason = _describe_failure(error, model.card, folder)
        _LOG.exception("the model cannot be served")
    return model


def _load(
    model: LoadedModel, folder: Path, environment: Mapping[str, str], gpu_id: int | None, build_family: FamilyBuilder
) -> None:
    model.contents = verify_folder(folder)
    model.card = load_card(folder)
    settings = settings_from_environment(environment, gpu_id, model.card.name)
    if settings.precision not in model.card.precisions:
        wrong = f"the precision is set to {settings.precision}, the card allows {', '.join(model.card.precisions)}"
        raise LoadError(f"{wrong}; set FOUNT_WORKER_PRECISION, or the model's entry in workers.yaml, to one of those")
    if not is_custom(model.card):
        settings = settings.with_family_layout()
    keep_freed_memory()
    configure_torch(settings)
    model.numerics = read_numerics(settings)
    module = build_module(model.card, folder, build_family)
    source = source_of(model.card, folder) if is_custom(model.card) else Path(inspect.getfile(type(module)))
    digest = model_digest(model.card, folder, source)
    if digest != model.contents.model_digest:
        parts = f"card, weights and family source have the digest {digest}"
        raise LoadError(f"{parts}, the archive {model.contents.model_digest}; pack the model again")
    network = build_network(model.card, module, settings)
    state = State(folder=settings.state_dir)
    if settings.compiled:
        pad_before_compiling(network, digest, model.numerics, state)
    with _compiling(network, settings):
        profile = load_or_measure_profile(network, digest, model.numerics, state)
        golden = folder / model.card.golden.file
        model.golden = check_golden(golden, network, profile.exec_batch_sizes, digest, model.numerics, state)
    operations = model.card.operations
    seconds = {size: profile.seconds_per_batch[size] / len(operations) for size in profile.exec_batch_sizes}
    times = {operation: BatchTimes(measured=seconds) for operation in operations}
    model.engine = Engine(network=network, profile=profile, times=times)
    _LOG.info("model %s %s is ready on %s", model.card.name, model.card.version, model.numerics.id)


@contextmanager
def _compiling(network: Network, settings: Settings) -> Iterator[None]:
    """Compile a network, if the settings say so, while each of its sizes runs for the first time."""
    if not settings.compiled:
        yield
        return
    cache = settings.state_dir / "compiled" if settings.state_dir else None
    with translate_compile_errors():
        inductor = compile_called(network.module, partial(run_probe, network), cache)
        yield
        if not inductor.graphs:
            raise CompileError("torch could not compile any part of the model; set compiled to 0")


def _describe_failure(error: Exception, card: Card | None, folder: Path) -> str:
    """Describe an unexpected error; for a custom model with the line in its source file."""
    if card is None or not is_custom(card):
        return f"loading failed with {type(error).__name__}; the worker's log has the traceback"
    remedy = "correct the model; it must accept z, and the label if it has classes, of any number of rows"
    remedy = remedy_for(error, remedy, is_program=card.family.name in PROGRAM_FAMILIES)
    return f"the model failed when it was first run: {describe_error(error, source_of(card, folder))}; {remedy}"
