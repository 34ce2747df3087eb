"""The file TorchServe loads: the one class it looks for, and no more.

At packing this file goes to the archive's root, beside the card. TorchServe gives each call as a mapping of names to
bytes and wants one bytes back for each.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handlers.worker.worker import Worker

__all__ = ["Entry"]


class Entry:
    """TorchServe's view of a worker."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def initialize(self, context: Any) -> None:
        """Load the model; whatever is wrong with it is told by DESCRIBE, never raised.

        Args:
            context: TorchServe's; `system_properties` has the archive's folder and the device.
        """
        # TorchServe's own code says several lines a call at INFO; what this package says is kept.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("handlers").setLevel(logging.INFO)
        properties = context.system_properties
        gpu_id = properties.get("gpu_id")
        self._worker = Worker.load(Path(properties["model_dir"]), gpu_id=None if gpu_id is None else int(gpu_id))
        # What is loaded stays for good: a full collection would walk all of torch in the middle of a call.
        gc.collect()
        gc.freeze()

    def handle(self, data: Sequence[Mapping[str, Any]] | None, context: Any) -> list[bytes]:
        """Answer calls one by one.

        Args:
            data: for each call a mapping whose `body` (or `data`) is a WorkerRequest.
            context: TorchServe's, not used: what a call is about travels in its bytes.

        Returns:
            For each call a WorkerReply.
        """
        worker = self._worker
        if worker is None:
            logging.getLogger(__name__).error("handle was called before initialize")
            return [b"" for _ in data or ()]
        return [worker.handle(_body_of(call)) for call in data or ()]


def _body_of(call: Mapping[str, Any]) -> bytes | None:
    body = call.get("body", call.get("data"))
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else None
