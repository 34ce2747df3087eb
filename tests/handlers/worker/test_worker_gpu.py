"""A worker on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fount.v1 import model_pb2
from handlers.worker.worker import Worker
from tests.handlers.toys import ToySampler, load, request, sample_item, send

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]


@pytest.fixture(params=["fp32", "bf16"])
def on_gpu(toy_folder: Path, request: pytest.FixtureRequest) -> Worker:
    environment = {"FOUNT_WORKER_PRECISION": request.param}
    return Worker.load(toy_folder, environment, 0, lambda _name, config: ToySampler.from_config(config))


def test_it_is_ready_under_numerics_of_its_own(on_gpu: Worker) -> None:
    assert on_gpu.model.engine, on_gpu.model.reason
    assert send(on_gpu, request(sample_item())).numerics.startswith("cuda-sm")


def test_a_request_of_forty_is_forty_requests_of_one(on_gpu: Worker) -> None:
    together = send(on_gpu, request(sample_item(count=40))).items[0].value.data
    assert together == b"".join(send(on_gpu, request(sample_item(start=i))).items[0].value.data for i in range(40))


def test_it_is_within_two_levels_of_the_cpu(on_gpu: Worker, toy_folder: Path) -> None:
    item = sample_item(count=64, dtype=model_pb2.DTYPE_UINT8)
    replies = [send(worker, request(item)) for worker in (on_gpu, load(toy_folder, ToySampler))]
    first, second = (np.frombuffer(reply.items[0].value.data, np.uint8).astype(int) for reply in replies)
    assert np.abs(first - second).max() <= 2


def test_tf32_is_off(on_gpu: Worker) -> None:
    assert on_gpu.model.numerics is not None
    assert "tf32: False" in on_gpu.model.numerics.details
