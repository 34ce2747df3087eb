"""The model behind mosec: `python -m benchmarks.peers.mosec_server FOLDER WORKERS WAIT_MS BATCH --port …`.

mosec's HTTP server is in Rust; it batches requests and passes their raw bodies to worker processes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mosec import Server, Worker

from benchmarks.eager import EagerModel

_FOLDER = "BENCHMARK_FOLDER"


class Model(Worker):
    """The worker of the only stage."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        self._model = EagerModel(Path(os.environ[_FOLDER]))

    def deserialize(self, data: bytes) -> bytes:
        """Pass the body."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Pass the images."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """Draw the samples of each request."""
        return self._model.draw(data)


def main(folder: str, workers: int, wait_ms: int, batch: int) -> None:
    """Serve until a signal."""
    os.environ[_FOLDER] = folder
    server = Server()
    server.append_worker(Model, num=workers, max_batch_size=batch, max_wait_time=wait_ms)
    server.run()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
