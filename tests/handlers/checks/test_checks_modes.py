"""`fount check --modes`: the ways of running a network, compared in one table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from handlers.cards.card import load_card
from handlers.checks.modes import compare_modes
from handlers.checks.performance import check_speed
from handlers.checks.subject import Subject
from handlers.execution.compiling import compiler_name, find_compiler
from handlers.execution.network import build_network
from handlers.loading.build import build_module
from handlers.settings import Settings
from handlers.verification.profile import measure_profile

FOLDER = Path(__file__).resolve().parents[3] / "model_store" / "digits-cgan"

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, while it compiles


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    subject = Subject(folder=FOLDER, settings=Settings(), picture=tmp_path / "check.png", modes=True)
    subject.card = load_card(FOLDER)
    subject.network = build_network(subject.card, build_module(subject.card, FOLDER), Settings())
    subject.profile = measure_profile(subject.network)
    yield subject
    torch._dynamo.reset()


def test_every_mode_has_its_times_and_the_sizes_at_which_rows_are_equal(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.checks.modes.find_compiler", lambda: None)
    header, eager, folded, compiled, script = compare_modes(subject)
    assert header.split("  ")[0] == "mode"
    for line in (eager, folded):
        assert line.endswith("1, 8, 64")
        assert all(float(word) > 0 for word in line.split()[1:4])
    assert re.fullmatch(r"folded, compiled +cannot run so: ValueError: there is no C\+\+ compiler", compiled)
    assert script.startswith("TorchScript, optimize_for_inference")
    assert script.endswith("64")


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason=f"no C++ compiler: {compiler_name()} is not there")
def test_a_compiled_network_is_compared(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.execution.compiling.Inductor.__call__", lambda _self, graph, _inputs: graph.forward)
    compiled = compare_modes(subject)[3]
    assert compiled.endswith("1, 8, 64")
    assert all(float(word) > 0 for word in compiled.split()[2:5])


def test_the_table_follows_the_speed(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.checks.performance.compare_modes", lambda _subject: ["the table"])
    assert check_speed(subject).seen.endswith("on 1 thread\nthe table")
    subject.modes = False
    assert "the table" not in check_speed(subject).seen
