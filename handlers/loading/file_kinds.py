"""Detect the kind of a weights file by its content, never by its name.

Any file enters; its kind leaves. Nothing is unpickled and torch is not needed, so packing and workers both use this.
"""

from __future__ import annotations

import shlex
import struct
import zipfile
from pathlib import Path
from typing import Literal

from fount.files import open_regular

__all__ = ["Kind", "describe_wrong_kind", "kind_of"]

Kind = Literal["safetensors", "pickle", "torchscript", "exported", "unknown"]

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"  # the opcode PROTO, which every pickle of protocol 2 and later begins with
_MAX_HEADER_BYTES = 100_000_000  # what the safetensors library allows


def kind_of(file: Path) -> Kind:
    """Detect the kind of a file; "pickle" includes the zip files of torch.save.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(file) as stream:
        start = stream.read(9)
    if start.startswith(_ZIP):
        return _kind_of_zip(file)
    if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= _MAX_HEADER_BYTES:
        return "safetensors"
    return "pickle" if start.startswith(_PICKLE) else "unknown"


def describe_wrong_kind(file: Path, expected: Kind) -> str | None:
    """Describe why a file cannot be what a card's family needs, and what to do; None when it may be.

    Args:
        file: the card's weights file.
        expected: "safetensors", or the kind of a program.
    """
    found = kind_of(file)
    if found in (expected, "unknown"):
        return None
    if expected == "safetensors" and found in ("torchscript", "exported"):
        remedy = f"set family.name to {found} and give latent, which serves it as it is"
        return f"{file.name} is a {found} program, not weights; {remedy}"
    if found == "pickle":
        why = "is a pickle, as torch.save writes it; reading one can run code, so it is never read here"
        out = file.with_name("converted.safetensors" if file.name == "weights.safetensors" else "weights.safetensors")
        convert = f"fount convert {shlex.quote(str(file))} --out {shlex.quote(str(out))}"
        remedy = f"run `{convert}`, and set weights.file to {out.name}"
        return f"{file.name} {why}; {remedy}"
    remedy = f"set family.name to {found}" if found != "safetensors" else "set family.name to module or to a family"
    return f"{file.name} is {found}, not a program of kind {expected}; {remedy}"


def _kind_of_zip(file: Path) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "unknown"
    if min((info.header_offset for info in infos), default=1) != 0:
        return "unknown"  # truncated: the directory that was found is that of a nested zip
    names = [info.filename.partition("/")[2] for info in infos]
    if any(name.startswith("code/") for name in names) or "constants.pkl" in names:
        return "torchscript"
    if any(name.startswith("models/") for name in names) and "archive_format" in names:
        return "exported"
    return "pickle" if "data.pkl" in names else "unknown"
