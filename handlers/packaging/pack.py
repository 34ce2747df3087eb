"""Pack a model folder into an archive that TorchServe can run; the same inputs give the same bytes.

Members are sorted and stored uncompressed, with one fixed time and mode, so that neither the clock nor the version of a
compressor changes the archive's digest. A model folder enters; `<name>-<version>.mar` leaves, written atomically.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import shlex
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToJson

from fount.archive import (
    CONTENTS_FILE,
    DESCRIPTION_FILE,
    FORMAT,
    MANIFEST_FILE,
    ArchiveError,
    ArchiveInfo,
    digest_of_ingredients,
    verify_archive,
)
from fount.files import atomic_path
from handlers.cards.card import CARD_FILE, Card, CardError, load_card
from handlers.cards.digests import file_digest, is_golden_stale, model_ingredients, source_of
from handlers.cards.message import card_to_proto
from handlers.loading.file_kinds import Kind, describe_wrong_kind
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES, UnknownFamilyError, source_file
from handlers.packaging.imports import FAMILY_IMPORTS, foreign_imports, modules_needed

__all__ = ["PackError", "pack"]

_ROOT = Path(__file__).resolve().parents[2]
_ENTRY = "handlers/entry.py"
_CONFIG_FILE = "model-config.yaml"
_CONFIG = (
    "# The gateway batches requests, so TorchServe must not.\nbatchSize: 1\nmaxBatchDelay: 1\nresponseTimeout: 120\n"
    "# The first start measures a profile and may compile.\nstartupTimeout: 600\n"
)
_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644
_COPY_BYTES = 1 << 20


class PackError(Exception):
    """A model cannot be packed. Correct what the message names, then pack it again."""


def pack(folder: Path, out: Path) -> ArchiveInfo:
    """Pack one model.

    Args:
        folder: the model folder.
        out: the folder for the archive; created if absent. An archive of the same name is replaced, unless its
            content is the same: then large weights are not copied again.

    Returns:
        The archive.

    Raises:
        PackError: the card is invalid, the weights are not the card's or of a wrong kind, the golden samples are
            missing or stale, the family is unknown, or the archive cannot be written.
    """
    try:
        card = load_card(folder)
        ingredients = model_ingredients(card, folder)
        sources = _sources(card, folder)
    except (CardError, UnknownFamilyError) as error:
        raise PackError(str(error)) from error
    file = out / f"{card.name}-{card.version}.mar"
    try:
        members = sources | _texts(card, ingredients, sources)
        if info := _already_written(members, file):
            return info
        _write(members, file)
        return verify_archive(file)
    except (OSError, ArchiveError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise PackError(f"{file} cannot be written: {reason}; choose another folder or free some space") from error


def _sources(card: Card, folder: Path) -> dict[str, Path | bytes]:
    """List the files that are packed unchanged."""
    weights, golden = folder / card.weights.file, folder / card.golden.file
    _check_parts(card, folder)
    modules = modules_needed(_ROOT, "handlers.entry")
    for name in _modules_of_family(card):
        modules |= modules_needed(_ROOT, name)
    modules["entry.py"] = modules.pop(_ENTRY)
    served = {CARD_FILE: folder / CARD_FILE, card.weights.file: weights, card.golden.file: golden}
    generated = {CONTENTS_FILE, DESCRIPTION_FILE, _CONFIG_FILE}
    if len(served) < 3 or served.keys() & (modules.keys() | generated):
        raise PackError(
            f"{folder}: weights and golden samples need distinct names that no other member has; rename {list(served)}"
        )
    if card.family.name == CUSTOM_FAMILY:
        served |= _custom_source(card, folder, {*modules, *served, *generated})
    return {**modules, **served}


def _check_parts(card: Card, folder: Path) -> None:
    """Check that the weights are of the right kind, and that golden samples are present and of these weights."""
    expected: dict[str, Kind] = {"torchscript": "torchscript", "exported": "exported"}
    weights = folder / card.weights.file
    if wrong := describe_wrong_kind(weights, expected.get(card.family.name, "safetensors")):
        raise PackError(f"{folder}: {wrong}")
    if not (folder / card.golden.file).is_file():
        raise PackError(
            f"{folder / card.golden.file} is missing; run `fount check {shlex.quote(str(folder))}`, which records it"
        )
    if is_golden_stale(card, folder):
        stale = f"{folder / card.golden.file} was recorded with other weights or other code than {folder} has now"
        raise PackError(f"{stale}; run `fount check {shlex.quote(str(folder))}`, which records it again")


def _modules_of_family(card: Card) -> list[str]:
    """List the modules that a worker imports for this family only."""
    name = card.family.name
    if name in (CUSTOM_FAMILY, *PROGRAM_FAMILIES):
        return ["handlers.models.custom", *(["handlers.loading.program"] if name in PROGRAM_FAMILIES else [])]
    family = source_file(name)
    if foreign := foreign_imports(_ROOT, family):
        allowed = f"{', '.join(FAMILY_IMPORTS)} and the standard library"
        raise PackError(f"{family} imports {', '.join(foreign)}; a family is one file that imports only {allowed}")
    return [f"handlers.models.{family.stem}"]


def _custom_source(card: Card, folder: Path, taken: set[str]) -> dict[str, Path]:
    """List the custom source file. In an archive Python finds it first, so it must shadow no module."""
    file = source_of(card, folder)
    known = file.stem in sys.stdlib_module_names or file.stem in ("fount", "handlers")
    if known or file.name in taken or _is_installed(file.stem):
        wrong = f"{file} has the name of a module that workers import"
        raise PackError(f"{wrong}; rename it, and family.source in the card, for instance to generator.py")
    return {file.name: file}


def _is_installed(name: str) -> bool:
    """Return whether Python finds a module of this name outside the current folder."""
    here = Path.cwd().resolve()
    places = [place for place in sys.path if place and Path(place).resolve() != here]
    return importlib.machinery.PathFinder.find_spec(name, places) is not None


def _texts(card: Card, ingredients: Mapping[str, Any], sources: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Generate the archive's configuration, manifest, description and contents file."""
    digest = digest_of_ingredients(ingredients)
    model = {"modelName": card.name, "modelVersion": card.version, "handler": "entry.py", "configFile": _CONFIG_FILE}
    # TorchServe requires createdOn; the true time would change the bytes.
    manifest = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": FORMAT}
    description = card_to_proto(card, digest, "")
    description.ClearField("state")  # known once a worker has loaded it
    texts = {
        _CONFIG_FILE: _CONFIG.encode(),
        MANIFEST_FILE: _to_json(manifest),
        DESCRIPTION_FILE: MessageToJson(description, sort_keys=True).encode(),
    }
    contents = {
        "format": FORMAT,
        "name": card.name,
        "version": card.version,
        "model": ingredients,
        "model_digest": digest,
        "files": {name: _digest(member) for name, member in sorted({**sources, **texts}.items())},
    }
    return {**texts, CONTENTS_FILE: _to_json(contents)}


def _to_json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _digest(member: Path | bytes) -> str:
    return file_digest(member) if isinstance(member, Path) else "sha256:" + hashlib.sha256(member).hexdigest()


def _already_written(members: Mapping[str, Path | bytes], file: Path) -> ArchiveInfo | None:
    """Return the existing archive if it has the same content; None when it differs or is damaged."""
    try:
        info = verify_archive(file)  # its members match its list of digests
    except ArchiveError:
        return None
    with zipfile.ZipFile(file) as archive:
        is_same = archive.read(CONTENTS_FILE) == members[CONTENTS_FILE]
        is_packed_here = all(member.date_time == _TIME for member in archive.infolist())
    return info if is_same and is_packed_here else None


def _write(members: Mapping[str, Path | bytes], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        part.chmod(0o644)  # whatever the umask: TorchServe may run as another user
        for name, member in sorted(members.items()):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr, info.create_system = _MODE << 16, 3
            if isinstance(member, bytes):
                archive.writestr(info, member)
                continue
            info.file_size = member.stat().st_size  # beyond 2 GiB, the header is another
            with member.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
