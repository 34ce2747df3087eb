"""The model behind LitServe: `python -m benchmarks.peers.litserve_server FOLDER WORKERS WAIT_MS BATCH`.

LitServe's HTTP servers are uvicorn processes with FastAPI, by default as many as workers; its workers collect the
requests of a batch from a queue, here the faster of its two kinds.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
import uvicorn
from fastapi import Body, Response

from benchmarks.eager import EagerModel


class Model(litserve.LitAPI):
    """The API of the model."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self._folder = folder

    def setup(self, device: str) -> None:
        """Load the model."""
        self._model = EagerModel(self._folder)

    def decode_request(self, request):
        """Pass the body."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Pass the bodies of a batch."""
        return inputs

    def predict(self, x: list[bytes]) -> list[bytes]:
        """Draw the samples of each request."""
        return self._model.draw(x)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Pass the images of each request."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Respond with the images."""
        return Response(output, media_type="application/octet-stream")


# Not a string, as annotations of this module are: LitServe passes it to FastAPI, which then gives the raw body.
Model.decode_request.__annotations__["request"] = Annotated[bytes, Body(media_type="application/octet-stream")]


def main(folder: str, workers: int, wait_ms: int, batch: int) -> None:
    """Serve on a free port until a signal."""
    listening = socket.create_server(("127.0.0.1", 0))
    uvicorn.Config.bind_socket = lambda _: listening  # type: ignore[method-assign]  # LitServe refuses port 0
    model = Model(Path(folder), max_batch_size=batch, batch_timeout=wait_ms / 1000)
    server = litserve.LitServer(model, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(
        host="127.0.0.1", log_level="warning", generate_client_file=False, access_log=False, timeout_keep_alive=600
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
