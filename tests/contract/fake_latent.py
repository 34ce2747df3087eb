"""A fake LatentService and ScoringService that break as configured, and record what they were sent.

Variant v of a row is the row plus v; the latent of a row is its first two values, divided by 255.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from fount.v1 import latent_pb2, latent_pb2_grpc, model_pb2, sampling_pb2, scoring_pb2, scoring_pb2_grpc
from tests.contract.fake_gateway import DIGEST, NUMERICS

SEED = 4711


@dataclass
class FakeLatent(latent_pb2_grpc.LatentServiceServicer, scoring_pb2_grpc.ScoringServiceServicer):
    """Attributes:
    breaks: after how many chunks an attempt ends as unavailable, one attempt after the other.
    chunk_count: results a chunk.
    numerics: ids in the headers, one attempt after the other; then NUMERICS.
    ends_early: whether attempts end after their first chunk without an error.
    pause_s: seconds without reading rows, after which an attempt fails; 0: rows are read.
    attempts: the config and the messages of rows of each attempt.
    """

    breaks: list[int] = field(default_factory=list)
    chunk_count: int = 2
    numerics: list[str] = field(default_factory=list)
    ends_early: bool = False
    pause_s: float = 0.0
    attempts: list[tuple[Any, list[sampling_pb2.InputRows]]] = field(default_factory=list)

    def Vary(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[latent_pb2.VaryResponse]:
        config, messages = self._read(requests)
        yield latent_pb2.VaryResponse(header=self._header(config, (2, 2, 1)))
        variants = np.arange(config.variants, dtype=np.uint8)[:, None, None, None]
        rows = np.concatenate([np.frombuffer(each.data, np.uint8).reshape(-1, 2, 2, 1) for each in messages])
        results = (rows[:, None] + variants).reshape(-1, 2, 2, 1)
        labels = np.array([label for each in messages for label in each.labels]).repeat(config.variants)
        for chunk in self._chunks(config.start_index * config.variants, results, labels, context):
            yield latent_pb2.VaryResponse(chunk=chunk)

    def Encode(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[latent_pb2.EncodeResponse]:
        if self.pause_s:
            time.sleep(self.pause_s)
            context.abort(grpc.StatusCode.INTERNAL, "set to fail")
        config, messages = self._read(requests)
        yield latent_pb2.EncodeResponse(header=self._header(config, (2,)))
        first = config.start_index
        for message in messages:
            pixels = np.frombuffer(message.data, np.uint8).reshape(message.count, -1)
            latents = (pixels[:, :2] / np.float32(255)).astype(np.float32)
            for chunk in self._chunks(first, latents, np.empty(0), context):
                yield latent_pb2.EncodeResponse(chunk=chunk)
            first += message.count

    def Classify(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        config, _ = self._read(requests)
        labels = [model_pb2.Label(id=0, name="one")]
        stream = self._header(config, (2,))
        yield scoring_pb2.ClassifyResponse(header=scoring_pb2.ClassifyHeader(stream=stream, labels=labels))

    def _read(self, requests: Iterator[Any]) -> tuple[Any, list[sampling_pb2.InputRows]]:
        config = next(requests).config
        messages = [each.rows for each in requests]
        self.attempts.append((config, messages))
        return config, messages

    def _header(self, config: Any, dims: tuple[int, ...]) -> sampling_pb2.SampleHeader:
        is_image = len(dims) == 3
        spec = model_pb2.SampleSpec(
            modality=model_pb2.SampleSpec.MODALITY_IMAGE if is_image else model_pb2.SampleSpec.MODALITY_VECTOR,
            dtype=model_pb2.DTYPE_UINT8 if is_image else model_pb2.DTYPE_FLOAT32,
            dims=dims,
            layout=model_pb2.SampleSpec.LAYOUT_HWC if is_image else model_pb2.SampleSpec.LAYOUT_C,
            encoding=model_pb2.ENCODING_UINT8 if is_image else model_pb2.ENCODING_FLOAT32,
        )
        model = model_pb2.ModelRef(name=config.model.name, version="1.0", digest=DIGEST)
        numerics = self.numerics.pop(0) if self.numerics else NUMERICS
        return sampling_pb2.SampleHeader(model=model, seed=SEED, numerics=numerics, sample_spec=spec)

    def _chunks(
        self, start: int, results: np.ndarray, labels: np.ndarray, context: grpc.ServicerContext
    ) -> Iterator[sampling_pb2.SampleChunk]:
        breaks = self.breaks.pop(0) if self.breaks else None
        for sent, first in enumerate(range(0, len(results), self.chunk_count)):
            if sent == breaks:
                context.abort(grpc.StatusCode.UNAVAILABLE, "set to break")
            if sent and self.ends_early:
                return
            part = slice(first, first + self.chunk_count)
            yield sampling_pb2.SampleChunk(
                start_index=start + first,
                count=len(results[part]),
                labels=labels[part].tolist(),
                data=results[part].tobytes(),
            )


@contextmanager
def serving_latent(fake: FakeLatent) -> Iterator[str]:
    """Serve on a free port, and yield the address."""
    server = grpc.server(ThreadPoolExecutor(2))
    latent_pb2_grpc.add_LatentServiceServicer_to_server(fake, server)
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
