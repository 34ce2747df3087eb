"""The module TorchServe loads, with the one class it looks for.

Packing copies this file to the archive's root. TorchServe passes each call as a mapping of names to bytes and expects
one bytes value back for each.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from handlers.worker.server import start_server
from handlers.worker.worker import Worker

__all__ = ["Entry"]


class Entry:
    """TorchServe's interface to a worker."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._server: grpc.Server | None = None

    def initialize(self, context: Any) -> None:
        """Load the model and serve it by gRPC, too; problems with it are reported by DESCRIBE, never raised.

        Args:
            context: TorchServe's; `system_properties` has the archive's folder and the device.
        """
        # TorchServe's own code logs several lines a call at INFO; this package's lines are kept.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("handlers").setLevel(logging.INFO)
        properties = context.system_properties
        gpu_id = properties.get("gpu_id")
        self._worker = Worker.load(Path(properties["model_dir"]), gpu_id=None if gpu_id is None else int(gpu_id))
        self._server = start_server(self._worker)
        # Everything loaded so far is permanent: a full collection would walk all of torch in the middle of a call.
        gc.collect()
        gc.freeze()

    def handle(self, data: Sequence[Mapping[str, Any]] | None, context: Any) -> list[bytes]:
        """Answer calls one by one.

        Args:
            data: for each call a mapping whose `body` (or `data`) is a WorkerRequest.
            context: TorchServe's, unused: everything about a call is in its bytes.

        Returns:
            A WorkerReply for each call.
        """
        worker = self._worker
        if worker is None:
            logging.getLogger(__name__).error("handle was called before initialize")
            return [b"" for _ in data or ()]
        return [worker.handle(_body_of(call)) for call in data or ()]


def _body_of(call: Mapping[str, Any]) -> bytes | None:
    body = call.get("body", call.get("data"))
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else None
