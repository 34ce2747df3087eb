"""The worker's own state: small JSON documents about what it measured, kept between starts.

State only saves time and sharpens a comparison, so nothing here ever stops a worker: a folder that cannot be written or
a document that cannot be read costs a warning in the log, and the measurement is made again.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["State"]

_LOG = logging.getLogger(__name__)
_DIGEST_DIGITS = 16
_MAX_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class State:
    """A folder of documents, one a kind, model and numerics.

    Attributes:
        folder: where they lie, as `<kind>/<digest>/<numerics>.json`; None keeps nothing.
    """

    folder: Path | None

    def read(self, kind: str, model_digest: str, numerics: str) -> dict[str, Any] | None:
        """Read a document; None when there is none that can be read."""
        file = self.file(kind, model_digest, numerics)
        if file is None:
            return None
        try:
            if file.stat().st_size > _MAX_BYTES:
                raise ValueError("is larger than 1 MiB")
            document = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(document, dict):
                raise ValueError("is not a JSON object")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError) as error:
            _LOG.warning("%s cannot be used (%s); measuring again", file, error)
            return None
        if (document.get("model_digest"), document.get("numerics")) != (model_digest, numerics):
            _LOG.warning("%s is about another model or numerics; measuring again", file)
            return None
        return document

    def write(self, kind: str, model_digest: str, numerics: str, document: Mapping[str, Any]) -> None:
        """Write a document whole or not at all."""
        file = self.file(kind, model_digest, numerics)
        if file is None:
            return
        whole = {"model_digest": model_digest, "numerics": numerics} | dict(document)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _replace(file, json.dumps(whole, indent=2, sort_keys=True) + "\n")
        except OSError as error:
            _LOG.warning("%s cannot be written (%s); it will be measured again at the next start", file, error)

    def file(self, kind: str, model_digest: str, numerics: str) -> Path | None:
        """Name the file of a document, there or not; None when nothing is kept."""
        if self.folder is None:
            return None
        return self.folder / kind / model_digest.removeprefix("sha256:")[:_DIGEST_DIGITS] / f"{numerics}.json"


def _replace(file: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
