"""Stored measurements of a worker: small JSON documents that survive restarts.

They only save time and sharpen a comparison, so nothing here stops a worker: a folder that cannot be written or a
document that cannot be read is logged as a warning, and the measurement is repeated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fount.files import atomic_write
from fount.json_text import parse_json

__all__ = ["State"]

_LOG = logging.getLogger(__name__)
_DIGEST_DIGITS = 16
_MAX_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class State:
    """A folder of documents, one for each kind, model and numerics.

    Attributes:
        folder: holds them as `<kind>/<digest>/<numerics>.json`; None stores nothing.
    """

    folder: Path | None

    def read(self, kind: str, model_digest: str, numerics: str) -> dict[str, Any] | None:
        """Read a document; None when there is none or it cannot be used."""
        file = self.file(kind, model_digest, numerics)
        if file is None:
            return None
        try:
            if file.stat().st_size > _MAX_BYTES:
                raise ValueError("is larger than 1 MiB")
            document = parse_json(file.read_bytes())
            if not isinstance(document, dict):
                raise ValueError("is not a JSON object")
            if (document.get("model_digest"), document.get("numerics")) != (model_digest, numerics):
                raise ValueError("is about another model or numerics")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            _LOG.warning("%s cannot be used (%s); measuring again", file, error)
            return None
        return document

    def write(self, kind: str, model_digest: str, numerics: str, document: Mapping[str, Any]) -> None:
        """Write a document atomically."""
        file = self.file(kind, model_digest, numerics)
        if file is None:
            return
        content = {"model_digest": model_digest, "numerics": numerics} | dict(document)
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, text.encode(), durable=False)
        except OSError as error:
            _LOG.warning("%s cannot be written (%s); it will be measured again at the next start", file, error)

    def file(self, kind: str, model_digest: str, numerics: str) -> Path | None:
        """Return the path of a document, whether it exists or not; None when nothing is stored."""
        if self.folder is None:
            return None
        return self.folder / kind / model_digest.removeprefix("sha256:")[:_DIGEST_DIGITS] / f"{numerics}.json"
