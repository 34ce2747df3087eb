"""The handler of TorchServe alone: a plain, fast handler without a gateway.

TorchServe batches up to 16 requests, whose samples are drawn together by `eager.py`. It is packed into its own archive,
with Fount's archive inside, so that both load the same weights.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["TorchServeAlone"]


class TorchServeAlone:
    """TorchServe's handler of the model."""

    def __init__(self) -> None:
        self._model: Any = None

    def initialize(self, context: Any) -> None:
        """Load the model."""
        logging.getLogger().setLevel(logging.WARNING)  # TorchServe logs several lines for each call at INFO
        gpu_id = context.system_properties.get("gpu_id")
        folder = Path(tempfile.mkdtemp())  # in the folder of this TorchServe, and removed with it
        with zipfile.ZipFile(Path(context.system_properties["model_dir"]) / "fount.mar") as archive:
            archive.extractall(folder)
        sys.path.insert(0, str(folder))
        from eager import EagerModel  # type: ignore[import-not-found]  # next to this file; imports fount.mar

        self._model = EagerModel(folder, gpu_id=None if gpu_id is None else int(gpu_id))

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Draw the samples of each request."""
        images: list[bytes] = self._model.draw([bytes(call["body"]) for call in data])
        return images
