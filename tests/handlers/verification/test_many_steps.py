"""Samplers of many steps are verified by a few of them, and discrete draws by how many samples differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from handlers.execution.network import build_network
from handlers.execution.numerics import read_numerics
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.golden import GoldenError, check_golden, record_golden
from handlers.verification.profile import measure_profile
from tests.handlers.many_step_toys import LEVELS, RowToy, row_card
from tests.handlers.toys import SIDE

DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    file = tmp_path / "golden.safetensors"
    record_golden(row_card(), RowToy(3), file)
    return file


def check(file: Path) -> str:
    network, numerics = build_network(row_card(), RowToy(3), Settings()), read_numerics(Settings())
    return check_golden(file, network, (1, 8, 16), DIGEST, numerics, State(folder=None))


def change(file: Path, samples: int) -> None:
    """Change one pixel of some samples, as if they were recorded elsewhere."""
    arrays = load_file(file)
    images = arrays["images"].copy()
    images[:samples, 0, 0, 0] ^= 128
    save_file(arrays | {"images": images}, file, {"numerics": "elsewhere", "float_digest": "sha256:0"})


def test_the_profile_takes_the_steps_of_the_probe_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(RowToy, "when_stepping", taken.append)
    profile = measure_profile(build_network(row_card(), RowToy(3), Settings()))
    assert set(taken) == {0, SIDE - 1}
    assert profile.exec_batch_sizes[-1] == 32


def test_the_profile_reports_the_time_of_a_whole_draw() -> None:
    network = build_network(row_card(), RowToy(3), Settings())
    assert network.probe_share == SIDE / 2


def test_a_row_that_depends_on_its_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = RowToy.advance

    def with_company(self, state, step, noise, labels, draw):
        after = advance(self, state, step, noise, labels, draw)
        if step == SIDE - 1 and len(state) >= 8:
            after[:, 0, step, 0] = (after[:, 0, step, 0] + 1) % LEVELS
        return after

    monkeypatch.setattr(RowToy, "advance", with_company)
    sizes = measure_profile(build_network(row_card(), RowToy(3), Settings())).exec_batch_sizes
    assert 1 not in sizes


def test_sixteen_samples_are_recorded(golden: Path) -> None:
    arrays = load_file(golden)
    assert arrays["images"].shape == (16, SIDE, SIDE, 1)
    assert len(np.unique(arrays["images"])) <= LEVELS
    check(golden)


def test_one_other_sample_passes_on_unknown_numerics(golden: Path) -> None:
    change(golden, 1)
    assert check(golden) == "1 of 16 samples (1 allowed)"


def test_two_other_samples_fail_on_unknown_numerics(golden: Path) -> None:
    change(golden, 2)
    with pytest.raises(GoldenError, match="2 of 16 samples"):
        check(golden)
