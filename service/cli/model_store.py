"""A model store, packed before it is served: `fount serve --model-store`.

Packing belongs to the workers' side, which this one never imports, so it runs as a process of its own. A folder of
models enters; a folder of archives leaves, with what is left out and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.domain import ModelState
from service.errors import SetupError
from service.workers import Offer

__all__ = ["PackedStore", "archives_folder", "model_folders", "pack_store", "tell"]

_CARD_FILE = "model.yaml"


@dataclass(frozen=True, kw_only=True)
class PackedStore:
    """What became of a model store.

    Attributes:
        archives: the folder of archives: those of the store's models, and no other.
        refused: the others, each with the reason, as a catalog lists them.
        nameless: the reasons of those whose card does not say name and version, by folder.
    """

    archives: Path
    refused: tuple[Offer, ...] = ()
    nameless: Mapping[str, str] = field(default_factory=dict)


def model_folders(store: Path) -> list[Path]:
    """List the folders of a store that have a card; hidden ones are none of its models.

    Raises:
        SetupError: it is no folder, or has none.
    """
    if not store.is_dir():
        raise SetupError(f"{store} is not a folder; name the folder that holds one folder a model with --model-store")
    folders = sorted(card.parent for card in store.glob(f"[!.]*/{_CARD_FILE}"))
    if not folders and (store / _CARD_FILE).is_file():
        raise SetupError(f"{store} is one model; name the folder it lies in: --model-store {store.resolve().parent}")
    if not folders:
        raise SetupError(f"{store} holds no model; begin one with `fount new NAME --model-store {store}`")
    return folders


def archives_folder(store: Path, state: Path) -> Path:
    """Say where the archives of a store are kept: one folder a store, below the state folder."""
    digest = hashlib.sha256(os.fsencode(store.resolve())).hexdigest()
    return state / "archives" / digest[:16]


def pack_store(store: Path, state: Path) -> PackedStore:
    """Pack every model of a store that can be packed, and remove archives of models that it no longer has.

    Models that have not changed since are read and left as they are.

    Args:
        store: folder with one folder a model.
        state: the state folder; made when missing.

    Raises:
        SetupError: no model can be packed, naming every reason; or packing does not run here.
    """
    model_folders(store)
    out, began_s = archives_folder(store, state), time.time()
    results = _run_pack(store, out)
    kept = {Path(result["path"]).name for result in results if "path" in result}
    refused = [result for result in results if "error" in result]
    if not kept:
        reasons = "".join(f"\n{tell(result['folder'], result['error'])}" for result in refused)
        raise SetupError(f"no model of {store} can be served:{reasons}")
    _remove_others(out, kept, began_s)
    nameless = {result["folder"]: result["error"] for result in refused if "name" not in result}
    return PackedStore(archives=out, refused=_to_offers(refused), nameless=nameless)


def tell(folder: str, reason: str) -> str:
    """Say why a model is refused, with its folder once: most reasons begin with a file in it."""
    return reason if reason.startswith(folder) else f"{folder}: {reason}"


def _run_pack(store: Path, out: Path) -> list[dict[str, Any]]:
    # -P: a folder named like one of our packages, where the command was typed, is not ours
    command = (sys.executable, "-P", "-m", "fount", "pack", "--all", "--keep-going", "--json",
               "--model-store", str(store), "--out", str(out))  # fmt: skip
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as packing,
        _stopped_with_us(packing),
    ):
        printed, complained = packing.communicate()
    try:
        results: list[dict[str, Any]] = json.loads(printed)
    except ValueError:
        told = complained.strip().removeprefix("Error: ") or f"it ended with code {packing.returncode}"
        raise SetupError(f"the models of {store} cannot be packed: {told}") from None
    return results


@contextmanager
def _stopped_with_us(child: subprocess.Popen[str]) -> Iterator[None]:
    """End packing when the system or a closed terminal ends us; a Ctrl-C reaches it by itself.

    What it leaves half written then, the next start removes.
    """

    def stop(number: int, frame: object) -> None:
        raise SystemExit(0)  # as a stop ends the server itself

    is_main = threading.current_thread() is threading.main_thread()
    ours = (signal.SIGTERM, signal.SIGHUP) if is_main else ()
    kept = [each for each in ours if signal.getsignal(each) is signal.SIG_IGN]  # nohup: the terminal may close
    before = {each: signal.signal(each, stop) for each in ours if each not in kept}
    try:
        yield
    except BaseException:
        child.terminate()
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _remove_others(out: Path, kept: Set[str], began_s: float) -> None:
    """Remove archives that are not of the store, and what packing left half written when it was killed before."""
    for archive in out.glob("*.mar"):
        if archive.name not in kept:
            archive.unlink(missing_ok=True)
    for half in out.glob(".*.mar.*"):
        with suppress(FileNotFoundError):
            if half.stat().st_mtime < began_s:  # else somebody is writing it now
                half.unlink()


def _to_offers(refused: Sequence[dict[str, Any]]) -> tuple[Offer, ...]:
    """Two folders of one name and version are one offer."""
    reasons = {(result["name"], result["version"]): result["error"] for result in refused if "name" in result}
    return tuple(
        Offer(name=name, version=version, state=ModelState.UNAVAILABLE, reason=" ".join(reason.split()))
        for (name, version), reason in reasons.items()
    )
