"""Workers of other numerics: named, within tolerance, never mixed into a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fount import Client
from fount.errors import FailedPrecondition
from tests.e2e.processes import Served, gateway, torchserve

pytestmark = pytest.mark.slow  # two TorchServes of other numerics take their time to come up

# What a worker is capped to must be less than what this machine has, or the cap changes nothing.
CAPPED = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
if "avx512f" in Path("/proc/cpuinfo").read_text():
    CAPPED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@pytest.fixture(scope="module")
def both(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One gateway over an ordinary TorchServe and a capped one."""
    ordinary, capped = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    with (
        torchserve(archives, ordinary, {}) as first,
        torchserve(archives, capped, CAPPED) as second,
        gateway(ordinary, first, second) as served,
        Client(served.server) as client,
    ):
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            models = client.models()
            if models and all(len(model.numerics) == 2 for model in models):
                break
            time.sleep(0.3)
        yield served


def test_a_capped_worker_names_other_numerics_and_passes_its_golden_samples(both: Served) -> None:
    with Client(both.server) as client:
        for model in client.models():
            assert len(set(model.numerics)) == 2, model


def test_a_stream_never_mixes_numerics(both: Served) -> None:
    with Client(both.server) as client:
        for numerics in client.model("digits-cvae").numerics:
            chunks = list(client.stream("digits-cvae", count=20_000, seed=5, numerics=numerics, encoding="float32"))
            assert {chunk.numerics for chunk in chunks} == {numerics}
            streamed = np.concatenate(chunks)
            for first in (0, 7777, 19_990):
                again = client.sample(
                    "digits-cvae", count=10, start_index=first, seed=5, numerics=numerics, encoding="float32"
                )
                assert again.tobytes() == streamed[first : first + 10].tobytes()


def test_both_numerics_draw_the_same_pictures_within_tolerance(both: Served) -> None:
    with Client(both.server) as client:
        one, other = (
            client.sample("digits-cvae", count=500, seed=5, numerics=numerics).astype(int)
            for numerics in client.model("digits-cvae").numerics
        )
    assert np.abs(one - other).max() <= 2
    assert np.abs(one - other).mean() <= 0.1


def test_unpinned_requests_are_each_of_one_numerics(both: Served) -> None:
    with Client(both.server) as client:
        known = set(client.model("digits-vae").numerics)
        assert {client.sample("digits-vae", count=1).numerics for _ in range(20)} <= known


def test_unknown_numerics_are_refused(both: Served) -> None:
    with Client(both.server) as client, pytest.raises(FailedPrecondition, match="there are"):
        client.sample("digits-vae", count=1, numerics="abacus")
