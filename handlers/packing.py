"""Packing: a model's folder becomes one archive that TorchServe can run, the same bytes from the same inputs.

Members are sorted and stored, with one fixed time and mode, so that neither the clock nor the version of a compressor
shows in the archive's digest. Enters: a folder of the model store. Leaves: `<name>-<version>.mar`, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fount.archive import (
    CONTENTS_FILE,
    FORMAT,
    MANIFEST_FILE,
    ArchiveError,
    ArchiveInfo,
    digest_of_ingredients,
    verify_archive,
)
from handlers.card import CARD_FILE, Card, CardError, check_weights, file_digest, load_card, model_ingredients
from handlers.imports import FAMILY_IMPORTS, modules_needed, strangers_of_family
from handlers.models import UnknownFamilyError, source_file

__all__ = ["PackError", "pack"]

_ROOT = Path(__file__).resolve().parent.parent
_ENTRY = "handlers/entry.py"
_CONFIG_FILE = "model-config.yaml"
_CONFIG = (
    "# The gateway packs requests, so TorchServe must not.\nbatchSize: 1\nmaxBatchDelay: 1\nresponseTimeout: 120\n"
)
_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644


class PackError(Exception):
    """A model cannot be packed. Mend what the message names, then pack it again."""


def pack(folder: Path, out: Path) -> ArchiveInfo:
    """Pack one model.

    Args:
        folder: its card, weights and golden samples.
        out: the folder the archive goes to; made when absent, an older archive of the same name is replaced.

    Returns:
        What was written.

    Raises:
        PackError: the card is invalid, the weights are not the card's, the golden samples are missing, the family is
            unknown, or the archive cannot be written.
    """
    try:
        card = load_card(folder)
        check_weights(card, folder)
        sources = _sources(card, folder)
    except (CardError, UnknownFamilyError) as error:
        raise PackError(str(error)) from error
    file = out / f"{card.name}-{card.version}.mar"
    try:
        members = sources | _texts(card, folder, sources)
        _write(members, file)
        return verify_archive(file)
    except (OSError, ArchiveError) as error:
        raise PackError(f"{file} cannot be written: {error}; choose another folder or make room") from error


def _sources(card: Card, folder: Path) -> dict[str, Path | bytes]:
    """Name the files that go in as they are."""
    golden = folder / card.golden.file
    if not golden.is_file():
        raise PackError(f"{golden} is missing; train the model again, its recipe records golden samples")
    family = source_file(card.family.name)
    if strangers := strangers_of_family(_ROOT, family):
        allowed = f"{', '.join(FAMILY_IMPORTS)} and the standard library"
        raise PackError(f"{family} imports {', '.join(strangers)}; a family is one file that imports {allowed} alone")
    modules = modules_needed(_ROOT, "handlers.entry") | modules_needed(_ROOT, f"handlers.models.{family.stem}")
    modules["entry.py"] = modules.pop(_ENTRY)
    served = {CARD_FILE: folder / CARD_FILE, card.weights.file: folder / card.weights.file, card.golden.file: golden}
    if len(served) < 3 or served.keys() & (modules.keys() | {CONTENTS_FILE, _CONFIG_FILE}):
        raise PackError(f"{folder}: weights and golden samples need file names of their own; rename {list(served)}")
    return {**modules, **served}


def _texts(card: Card, folder: Path, sources: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Write what an archive says of itself."""
    texts = {_CONFIG_FILE: _CONFIG.encode(), MANIFEST_FILE: _to_json(_manifest(card))}
    ingredients = model_ingredients(card)
    contents = {
        "format": FORMAT,
        "name": card.name,
        "version": card.version,
        "model": ingredients,
        "model_digest": digest_of_ingredients(ingredients),
        "files": {name: _digest(member) for name, member in sorted({**sources, **texts}.items())},
    }
    return {**texts, CONTENTS_FILE: _to_json(contents)}


def _manifest(card: Card) -> dict[str, Any]:
    model = {"modelName": card.name, "modelVersion": card.version, "handler": "entry.py", "configFile": _CONFIG_FILE}
    # TorchServe asks for createdOn; the true time would give equal inputs other bytes.
    return {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": FORMAT}


def _to_json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _digest(member: Path | bytes) -> str:
    return file_digest(member) if isinstance(member, Path) else "sha256:" + hashlib.sha256(member).hexdigest()


def _write(members: Mapping[str, Path | bytes], file: Path) -> None:
    """Write the zip beside its place, then move it there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, member in sorted(members.items()):
                info = zipfile.ZipInfo(name, _TIME)
                info.external_attr, info.create_system = _MODE << 16, 3
                archive.writestr(info, member.read_bytes() if isinstance(member, Path) else member)
        Path(temporary).chmod(0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
