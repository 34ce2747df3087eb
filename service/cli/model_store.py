"""Pack a model store before it is served: `fount serve --model-store`.

A folder of models enters; a folder of archives leaves, with the models that were left out and why. Packing belongs to
the workers' side, which the service never imports, so it runs as a process.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from fount.environment import python_command
from service.cli.signals import stop_signals
from service.domain import ModelState
from service.errors import SetupError
from service.workers import Offer

__all__ = ["PackedStore", "archives_folder", "format_reason", "model_folders", "pack_store"]

_CARD_FILE = "model.yaml"


@dataclass(frozen=True, kw_only=True)
class PackedStore:
    """The result of packing a model store.

    Attributes:
        archives: the folder with the archives of the store's models, and no others.
        refused: models that could not be packed, each with the reason, as the catalog lists them.
        nameless: the reasons of those whose card has no valid name and version, by folder.
    """

    archives: Path
    refused: tuple[Offer, ...] = ()
    nameless: Mapping[str, str] = field(default_factory=dict)


def model_folders(store: Path) -> list[Path]:
    """List the folders of a store that have a card; hidden folders do not count.

    Raises:
        SetupError: the store is not a folder, or has no model.
    """
    if not store.is_dir():
        raise SetupError(f"{store} is not a folder; name the folder that holds one folder a model with --model-store")
    folders = sorted(card.parent for card in store.glob(f"[!.]*/{_CARD_FILE}"))
    if not folders and (store / _CARD_FILE).is_file():
        raise SetupError(
            f"{store} is one model; name its parent folder: --model-store {shlex.quote(str(store.resolve().parent))}"
        )
    if not folders:
        raise SetupError(
            f"{store} holds no model; create one with `fount new NAME --model-store {shlex.quote(str(store))}`"
        )
    return folders


def archives_folder(store: Path, state: Path) -> Path:
    """Return the folder of a store's archives, below the state folder."""
    digest = hashlib.sha256(os.fsencode(store.resolve())).hexdigest()
    return state / "archives" / digest[:16]


def pack_store(store: Path, state: Path) -> PackedStore:
    """Pack every model of a store that can be packed, and remove archives of models that it no longer has.

    Models that have not changed since the last time are only read.

    Args:
        store: folder with one folder a model.
        state: the state folder; created when missing.

    Raises:
        SetupError: no model can be packed, naming every reason; or packing cannot run.
    """
    model_folders(store)
    out, started_s = archives_folder(store, state), time.time()
    results = _run_pack(store, out)
    kept = {Path(result.path).name for result in results if result.path}
    refused = [result for result in results if result.error]
    if not kept:
        reasons = "".join(f"\n{format_reason(result.folder, result.error)}" for result in refused)
        raise SetupError(f"no model of {store} can be served:{reasons}")
    _remove_others(out, kept, started_s)
    nameless = {result.folder: result.error for result in refused if not result.name}
    return PackedStore(archives=out, refused=_to_offers(refused), nameless=nameless)


def format_reason(folder: str, reason: str) -> str:
    """Prefix the reason why a model is refused with its folder, unless it begins with a file in that folder."""
    return reason if reason.startswith(folder) else f"{folder}: {reason}"


@dataclass(frozen=True, kw_only=True)
class _Packed:
    """One model in the output of `fount pack --json`: packed with a path, refused with an error; "" is absent."""

    path: str = ""
    folder: str = ""
    error: str = ""
    name: str = ""
    version: str = ""


_OUTPUT = TypeAdapter(list[_Packed])


def _run_pack(store: Path, out: Path) -> list[_Packed]:
    command = python_command(
        "-m", "fount", "pack", "--all", "--keep-going", "--json", "--model-store", str(store), "--out", str(out)
    )
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as packing,
        _ends_with_this_process(packing),
    ):
        output, errors = packing.communicate()
    try:
        return _OUTPUT.validate_json(output)
    except ValueError:
        printed = errors.decode(errors="replace").strip().removeprefix("Error: ")
        reason = printed or f"packing ended with code {packing.returncode}, and printed something else than its result"
        raise SetupError(f"the models of {store} cannot be packed: {reason}") from None


@contextmanager
def _ends_with_this_process(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Terminate a child when a signal stops this process; Ctrl-C reaches the child as well.

    The next start removes what it leaves half-written.
    """

    def stop(number: int, frame: object) -> None:
        raise SystemExit(0)  # the exit code of a stopped server

    is_main = threading.current_thread() is threading.main_thread()
    handled = [each for each in stop_signals() if each is not signal.SIGINT] if is_main else []
    before = {each: signal.signal(each, stop) for each in handled}
    try:
        yield
    except BaseException:
        child.terminate()
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _remove_others(out: Path, kept: Set[str], started_s: float) -> None:
    """Remove archives that are not of the store, and temporary files of a packing that was killed."""
    for archive in out.glob("*.mar"):
        if archive.name not in kept:
            archive.unlink(missing_ok=True)
    for part in out.glob(".*.mar.*"):
        with suppress(FileNotFoundError):
            if part.stat().st_mtime < started_s:  # newer ones are being written by another process
                part.unlink()


def _to_offers(refused: Sequence[_Packed]) -> tuple[Offer, ...]:
    """Make one offer a name and version, also when several folders have the same."""
    reasons = {(result.name, result.version): result.error for result in refused if result.name}
    return tuple(
        Offer(name=name, version=version, state=ModelState.UNAVAILABLE, reason=" ".join(reason.split()))
        for (name, version), reason in reasons.items()
    )
