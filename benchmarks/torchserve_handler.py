"""The handler of TorchServe alone: a plain, fast handler without a gateway.

One request is one sample; TorchServe batches up to 16 requests. The rows of a batch are joined, padded to a size of the
profile that Fount's workers use, run through the same network and split again. It is packed into its own archive, with
Fount's archive inside, so that both load the same model in the same way.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchserve_body import read_body  # type: ignore[import-not-found]  # next to this file in the archive

__all__ = ["TorchServeAlone"]


class TorchServeAlone:
    """TorchServe's handler of the model."""

    def __init__(self) -> None:
        self._network: Any = None
        self._sizes: tuple[int, ...] = ()

    def initialize(self, context: Any) -> None:
        """Load the model and its profile."""
        logging.getLogger().setLevel(logging.WARNING)  # TorchServe logs several lines for each call at INFO
        gpu_id = context.system_properties.get("gpu_id")
        folder = Path(tempfile.mkdtemp())  # in the folder of this TorchServe, and removed with it
        with zipfile.ZipFile(Path(context.system_properties["model_dir"]) / "fount.mar") as archive:
            archive.extractall(folder)
        sys.path.insert(0, str(folder))
        from handlers.worker.worker import Worker  # imported from the archive

        model = Worker.load(folder, gpu_id=None if gpu_id is None else int(gpu_id)).model
        if model.engine is None:
            raise RuntimeError(model.reason)
        self._network, self._sizes = model.engine.network, model.engine.profile.exec_batch_sizes

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Draw one sample a request: raw uint8, row-major."""
        from fount.address import Addresses
        from handlers.execution.pixels import floats_to_uint8
        from handlers.execution.rows import SampleRows, pad_rows

        requests = [read_body(bytes(call["body"])) for call in data]
        seeds, indices = (np.array([each[k] for each in requests], np.uint64) for k in (0, 1))
        labels = np.array([each[2] for each in requests], np.int64)
        rows = SampleRows(addresses=Addresses(seeds=seeds, indices=indices), labels=labels)
        size = next(size for size in self._sizes if size >= len(rows))
        floats = self._network.run("SAMPLE", pad_rows(rows, size))[: len(rows)]
        images = floats_to_uint8(floats, self._network.card.sample.value_range)
        return [image.tobytes() for image in images]
