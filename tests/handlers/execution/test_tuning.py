"""`fount tune`: ways of running measured in processes of their own, and the best written down."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fount.cli.main import main
from fount.tuned import TunedModel, read_tuned
from handlers.cards.card import load_card
from handlers.cli.tune import to_table
from handlers.loading.build import build_module
from handlers.packaging.pack import pack
from handlers.tuning.measuring import Candidate, Measurement, best_first, list_candidates, measure
from handlers.verification.golden import record_golden
from tests.handlers.planted import plant

PLAIN = Candidate(workers=1, threads=1, precision="fp32", layout="nchw", compiled=False)
TWO = Candidate(workers=2, threads=1, precision="fp32", layout="nhwc", compiled=False)
LOST = Candidate(workers=1, threads=1, precision="bf16", layout="nhwc", compiled=False)


@pytest.mark.parametrize(
    ("cores", "shares"),
    [
        (1, {(1, 1)}),
        (2, {(1, 1), (1, 2), (2, 1)}),
        (6, {(1, 1), (1, 4), (2, 2), (4, 1)}),
    ],
)
def test_workers_and_threads_fill_the_cores(cores: int, shares: set[tuple[int, int]]) -> None:
    found = list_candidates(cores, ("fp32",), can_compile=False)
    assert {(one.workers, one.threads) for one in found} == shares


def test_every_combination_is_measured_once() -> None:
    found = list_candidates(1, ("fp32", "bf16"), can_compile=True)
    ways = {(one.precision, one.layout, one.compiled) for one in found if one.folded}
    assert (len(found), len(ways)) == (9, 8)


def test_the_first_is_unfolded_for_comparison() -> None:
    found = list_candidates(1, ("fp32",), can_compile=False)
    assert [one.folded for one in found] == [False, True, True]
    assert str(found[0]) == "1×1, fp32, nchw, unfolded"
    assert found[0].environment["FOUNT_WORKER_FOLDED"] == "0"


def test_nothing_is_compiled_without_a_compiler() -> None:
    assert not any(one.compiled for one in list_candidates(2, ("fp32",), can_compile=False))


def _measured(candidate: Candidate, per_second: float, small_s: float) -> Measurement:
    per_size = {1: 1.0, 8: 1.0, 32: per_second}
    return Measurement(candidate=candidate, per_second=per_size, seconds={1: 0.002, 8: small_s, 32: 1.0})


def test_the_goal_decides_what_is_best() -> None:
    bulk, quick = _measured(TWO, 100.0, 0.5), _measured(PLAIN, 50.0, 0.1)
    dropped = Measurement(candidate=LOST, dropped="golden samples differ")
    assert best_first([quick, dropped, bulk], "throughput") == [bulk, quick]
    assert best_first([bulk, quick, dropped], "latency") == [quick, bulk]


def test_the_table_lists_dropped_candidates_with_reasons() -> None:
    lines = to_table([_measured(TWO, 4321.0, 0.005)], [Measurement(candidate=LOST, dropped="too far off")]).splitlines()
    assert lines[1].split() == ["2", "1", "fp32", "nhwc", "yes", "no", "4,321", "32", "2.00", "5.00"]
    assert lines[2] == "dropped: 1×1, bf16, nhwc: too far off"


def _tune(store: Path, monkeypatch: pytest.MonkeyPatch, candidates: list[Candidate], *options: str) -> Result:
    monkeypatch.setattr("handlers.cli.tune._candidates", lambda _card: candidates)
    arguments = ["tune", "small", "--model-store", str(store), "--state-dir", str(store / "state"), "--seconds", "0.1"]
    return CliRunner().invoke(main, [*arguments, *options])


@pytest.mark.slow
def test_the_best_candidate_is_written_for_workers(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _tune(store, monkeypatch, [TWO], "--json")
    document = json.loads(result.stdout)
    assert all(rate > 0 for rate in document["measured"][0]["per_second"].values())
    assert document["best"] == vars(TWO)
    expected = TunedModel(workers=2, threads=1, precision="fp32", layout="nhwc", folded=True, compiled=False)
    assert read_tuned(store / "state" / "workers.yaml") == {"small": expected}


def test_a_candidate_that_cannot_serve_is_dropped_with_the_workers_reason(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = store / "small" / "model.yaml"
    card.write_text(card.read_text().replace("precisions: [fp32, bf16]", "precisions: [fp32]"))
    result = _tune(store, monkeypatch, [LOST])
    assert result.exit_code == 1
    assert "dropped: 1×1, bf16, nhwc: the precision is set to bf16, the card allows fp32" in result.stdout
    assert not (store / "state" / "workers.yaml").exists()


JUNK = """import os
        for fd in range(3, 12) if "FOUNT_WORKER_THREADS" in os.environ else ():
            try: os.write(fd, {0!r} + bytes([10]))
            except OSError: pass"""
PIPE = "the model's code wrote something else to the pipe of the measurement"


@pytest.mark.parametrize(
    ("junk", "reason"),
    [
        (b"junk", PIPE),
        pytest.param(b"[" * 50_000, PIPE, marks=pytest.mark.slow),
        pytest.param(b'{"reason": 5, "golden": ""}', PIPE, marks=pytest.mark.slow),
        pytest.param(b'{"reason": "", "golden": ""}\n{"seconds": {"1": 0.0}}', PIPE, marks=pytest.mark.slow),
        (b'{"reason": "", "golden": ""}\n{"seconds": {}}', PIPE),
    ],
    ids=["text", "deep nesting", "a wrong type", "no time", "no sizes"],
)
def test_what_a_model_writes_to_the_pipe_drops_the_candidate(tmp_path: Path, junk: bytes, reason: str) -> None:
    folder = plant(tmp_path / "planted", before=JUNK.format(junk))
    card = load_card(folder)
    record_golden(card, build_module(card, folder), folder / "golden.safetensors", folder=folder)
    pack(folder, tmp_path)
    with zipfile.ZipFile(tmp_path / "planted-1.0.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    measured = measure(PLAIN, tmp_path / "unpacked", tmp_path / "state", 0.1)
    assert measured.dropped == reason


def test_a_dry_run_writes_no_result(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _tune(store, monkeypatch, [PLAIN], "--dry-run")
    assert "Best for throughput: 1×1, fp32, nchw (workers × threads). Nothing was written." in result.stdout
    assert not (store / "state" / "workers.yaml").exists()


def test_an_absent_model_is_reported(store: Path) -> None:
    result = CliRunner().invoke(main, ["tune", "smal", "--model-store", str(store)])
    assert result.exit_code == 1
    assert "has no model 'smal'; it has small" in result.stderr
