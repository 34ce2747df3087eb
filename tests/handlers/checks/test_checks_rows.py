"""The checks `rows` and `deterministic`: the cause of mixed, random or changing results is named with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handlers.planted import SOURCE, find, plant

Planted = dict[str, str]

MIXING: dict[str, tuple[Planted, str, str]] = {
    "a BatchNorm in training mode": (
        {"layer": "nn.BatchNorm1d(16)", "before": "self.net[1].train()"},
        "in layer net.1 (BatchNorm1d)",
        "do not call train()",
    ),
    "a BatchNorm without running statistics": (
        {"layer": "nn.BatchNorm1d(16, track_running_stats=False)"},
        "in layer net.1 (BatchNorm1d)",
        "track_running_stats=False",
    ),
    "a layer that subtracts the batch's mean": ({"layer": "Shift()"}, "in layer net.1 (Shift)", "Shift.forward lets"),
    "a block that does so between its layers": (
        {"layer": "Block()"},
        "in the code of layer net.1 (Block), before layer net.1.outer (Linear)",
        "mean(dim=(1, 2, 3)",
    ),
    "an LSTM that takes the batch for time": ({"layer": "Time()"}, "in layer net.1.lstm (LSTM)", "batch_first=True"),
    "code before the layers": (
        {"before": "z = z - z.mean(0)"},
        "in sample() itself, before layer net.0",
        "sample() lets",
    ),
    "code after the layers": (
        {"after": "x = x - x.mean(0)"},
        "in sample() itself, after layer net (Sequential)",
        "sample() lets rows",
    ),
    "code that counts places": (
        {"after": "x = x + torch.arange(len(x))[:, None]"},
        "at another index in a batch of 7",
        "sample() lets rows",
    ),
    "code that spares a lone row": (
        {"after": "x = x if len(x) == 1 else x * 0.9"},
        "alone instead of in a batch of 7",
        "sample() lets rows",
    ),
}
RANDOM: dict[str, tuple[Planted, str, str]] = {
    "a dropout in training mode": (
        {"layer": "nn.Dropout(0.5)", "before": "self.net[1].train()"},
        "in layer net.1 (Dropout)",
        "in training mode: do not call train()",
    ),
    "torch.randn": (
        {"before": "z = z + torch.randn(4)"},
        "in sample() itself, before layer net.0",
        "never torch.randn",
    ),
    "a functional dropout": ({"after": "x = F.dropout(x, 0.5)"}, "in sample() itself, after layer net", "noise(step)"),
    "Python's random": (
        {"after": "x = x * random.random()"},
        "other seeds of the global generators",
        "take them from z",
    ),
    "a generator of its own": (
        {"after": "g = torch.Generator(); g.seed(); x = x + torch.randn(16, generator=g)"},
        "when they were run again",
        "unseeded generator",
    ),
    "a counter that pictures depend on": (
        {"after": "self.calls += 1; x = x * self.calls"},
        "when they were run again",
        "a counter",
    ),
    "a buffer that grows": ({"after": "self.count += 1"}, "changed buffer count", "must not write to buffers"),
    "running statistics that move": (
        {"layer": "nn.BatchNorm1d(16)", "before": "self.net[1].train()"},
        "changed buffer net.1.running_mean",
        "likely saved or run in training mode: call eval() before saving",
    ),
}


@pytest.mark.parametrize(("planted", "seen", "change"), MIXING.values(), ids=MIXING.keys())
def test_the_code_that_mixes_rows_is_named(tmp_path: Path, planted: Planted, seen: str, change: str) -> None:
    finding = find(plant(tmp_path, **planted), "rows")
    assert finding.state == "failed"
    assert seen in finding.seen
    assert change in finding.change


@pytest.mark.parametrize(("planted", "seen", "change"), RANDOM.values(), ids=RANDOM.keys())
def test_the_cause_of_changing_results_is_named(tmp_path: Path, planted: Planted, seen: str, change: str) -> None:
    finding = find(plant(tmp_path, **planted), "deterministic")
    assert finding.state == "failed"
    assert seen in finding.seen
    assert change in finding.change


def test_the_difference_is_reported_in_levels(tmp_path: Path) -> None:
    assert "levels of 255" in find(plant(tmp_path, after="x = x - x.mean(0)"), "rows").seen


@pytest.mark.parametrize("layer", ["nn.BatchNorm1d(16)", "nn.GroupNorm(4, 16)", "nn.LayerNorm(16)", "nn.Dropout(0.5)"])
def test_layers_that_leave_rows_alone_pass(tmp_path: Path, layer: str) -> None:
    folder = plant(tmp_path, layer=layer)
    assert find(folder, "rows").state == "passed"
    assert find(folder, "deterministic").state == "passed"


def test_a_harmless_layer_left_in_training_mode_is_warned_of(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, before="self.net[0].train()"), "rows")
    assert finding.state == "warned"
    assert "net.0 (Linear) stayed in training mode" in finding.seen.replace("module.", "")


def test_a_harmless_counter_is_warned_of(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, after="self.calls += 1"), "deterministic")
    assert finding.state == "warned"
    assert "changed calls" in finding.seen


def test_randomness_is_not_taken_for_mixing(tmp_path: Path) -> None:
    folder = plant(tmp_path, after="x = x + torch.randn_like(x)")
    assert find(folder, "rows").state == "passed"
    assert find(folder, "deterministic").state == "failed"


def test_rows_are_skipped_when_the_same_batch_gives_two_results(tmp_path: Path) -> None:
    finding = find(plant(tmp_path, after="self.calls += 1; x = x * self.calls"), "rows")
    assert finding.state == "skipped"
    assert "see deterministic" in finding.seen


@pytest.mark.parametrize("check", ["rows", "deterministic", "notebook"])
def test_noise_by_address_passes(tmp_path: Path, check: str) -> None:
    source = SOURCE.replace("sample(self, z, label)", "sample(self, z, label, noise)")
    assert find(plant(tmp_path, source=source, before="z = 0.8 * z + 0.6 * noise(3)"), check).state == "passed"
