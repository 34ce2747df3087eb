"""Checkpoints: whole or not taken for whole, of one run alone, and never more than two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from handlers.recipes.run.checkpoints import (
    Checkpoint,
    CheckpointError,
    History,
    alone_in,
    check_identity,
    has_checkpoint,
    load_checkpoint,
    newest_healthy,
    save_checkpoint,
    write_whole,
)
from handlers.recipes.run.watch import Look

IDENTITY = {"recipe": "digits-cgan", "seed": "5"}


def checkpoint(step: int, *, healthy: bool = True) -> Checkpoint:
    history = History(losses=[(step, {"loss": 0.1})], looks=[Look(step=step, accuracies=(0.5,), ratio=0.9)])
    state = {"module.weight": torch.full((3,), float(step)), "random": torch.arange(4, dtype=torch.uint8)}
    return Checkpoint(step=step, identity=IDENTITY, history=history, healthy=healthy, state=state)


def load(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    warnings: list[str] = []
    return load_checkpoint(folder, warnings.append), warnings


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder of checkpoints, with those of steps 7 and 9."""
    for step in (7, 9):
        save_checkpoint(tmp_path / "run" / "checkpoints", checkpoint(step))
    return tmp_path / "run" / "checkpoints"


def test_the_newest_is_read_as_it_was_written(folder: Path) -> None:
    found, warnings = load(folder)
    assert found is not None
    assert (found.step, found.identity, found.history) == (9, IDENTITY, checkpoint(9).history)
    assert {name: value.tolist() for name, value in found.state.items()} == {
        "module.weight": [9.0, 9.0, 9.0],
        "random": [0, 1, 2, 3],
    }
    assert warnings == []


def test_the_two_newest_are_kept(folder: Path) -> None:
    save_checkpoint(folder, checkpoint(11))
    assert names(folder) == [
        "step-000000009.json",
        "step-000000009.safetensors",
        "step-000000011.json",
        "step-000000011.safetensors",
    ]


def test_what_was_never_finished_is_cleared_away(folder: Path) -> None:
    (folder / "step-000000010.safetensors").write_bytes(b"cut off before its document")
    (folder / "step-000000010.json.part").write_bytes(b"{")
    assert load(folder)[1] == []
    save_checkpoint(folder, checkpoint(11))
    assert [name for name in names(folder) if "010" in name] == []


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == (None, [])
    assert not has_checkpoint(tmp_path / "none")


DAMAGES = {
    "torn tensors": ("safetensors", lambda content: content[:-1]),
    "other tensors": ("safetensors", lambda content: content[:-1] + b"\xff"),
    "no tensors": ("safetensors", None),
    "torn document": ("json", lambda content: content[:-9]),
    "empty document": ("json", lambda _: b""),
    "document of something else": ("json", lambda _: b"[]"),
    "document of another format": ("json", lambda content: content.replace(b'"format": 1', b'"format": 2')),
    "document of another step": ("json", lambda content: content.replace(b'"step": 9, "sha', b'"step": 8, "sha')),
    "deep document": ("json", lambda _: b"[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(folder: Path, damage: str) -> None:
    suffix, change = DAMAGES[damage]
    file = folder / f"step-000000009.{suffix}"
    content = file.read_bytes()
    file.unlink() if change is None else file.write_bytes(change(content))
    found, warnings = load(folder)
    assert found is not None
    assert found.step == 7
    assert len(warnings) == 1
    assert "step-000000009.json is damaged" in warnings[0]


def test_a_damaged_one_is_gone_after_the_next_is_saved(folder: Path) -> None:
    (folder / "step-000000009.safetensors").write_bytes(b"")
    save_checkpoint(folder, checkpoint(8))
    assert [name for name in names(folder) if name.endswith("json")] == ["step-000000007.json", "step-000000008.json"]


def test_nothing_but_damaged_ones_says_what_to_delete(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.write_text("{}")
    with pytest.raises(CheckpointError, match=rf"no checkpoint in .* is whole; delete {folder.parent} and train again"):
        load(folder)


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file is in the way")
    with pytest.raises(CheckpointError, match=r"cannot be written .*; make room, then go on by --resume"):
        save_checkpoint(tmp_path / "checkpoints", checkpoint(1))


def test_an_unhealthy_one_is_passed_over_when_a_healthy_one_is_looked_for(folder: Path) -> None:
    save_checkpoint(folder, checkpoint(11, healthy=False))
    assert newest_healthy(folder) == folder / "step-000000009.safetensors"


def test_another_run_is_refused_with_every_difference(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        check_identity(tmp_path, IDENTITY | {"steps": "9"}, IDENTITY | {"seed": "6", "torch": "2.0"})
    assert str(error.value).splitlines()[1:4] == [
        "  seed: 5 there, 6 here",
        "  torch: none there, 2.0 here",
        "  steps: 9 there, none here",
    ]
    assert f"or delete {tmp_path} to start anew" in str(error.value)


def test_nothing_is_unpickled(folder: Path) -> None:
    document = json.loads((folder / "step-000000009.json").read_text())
    assert document["step"] == 9
    assert (folder / "step-000000009.safetensors").read_bytes()[8:9] == b"{"


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(CheckpointError, match="another process trains in"), alone_in(tmp_path):
        pass


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_handle: int) -> None:
        raise OSError("no space left")

    write_whole(tmp_path / "file", b"before")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_whole(tmp_path / "file", b"after")
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"before")
