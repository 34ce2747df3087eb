"""Checkpoints: damage is detected, runs are not mixed up, and the two newest are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from handlers.recipes.run.checkpoints import (
    Checkpoint,
    CheckpointError,
    check_identity,
    has_checkpoint,
    load_checkpoint,
    lock_folder,
    newest_healthy,
    save_checkpoint,
)
from handlers.recipes.run.history import History, Snapshot

IDENTITY = {"recipe": "digits-cgan", "seed": "5"}


def checkpoint(step: int, *, healthy: bool = True) -> Checkpoint:
    history = History(losses=[(step, {"loss": 0.1})], snapshots=[Snapshot(step=step, accuracies=(0.5,), ratio=0.9)])
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


def test_the_newest_checkpoint_is_read_as_written(folder: Path) -> None:
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


def test_incomplete_files_are_deleted(folder: Path) -> None:
    (folder / "step-000000010.safetensors").write_bytes(b"interrupted before its document")
    (folder / ".step-000000010.json.1a2b.part").write_bytes(b"{")
    assert load(folder)[1] == []
    save_checkpoint(folder, checkpoint(11))
    assert [name for name in names(folder) if "010" in name] == []


def test_a_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
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
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_read(folder: Path, damage: str) -> None:
    suffix, change = DAMAGES[damage]
    file = folder / f"step-000000009.{suffix}"
    content = file.read_bytes()
    file.unlink() if change is None else file.write_bytes(change(content))
    found, warnings = load(folder)
    assert found is not None
    assert found.step == 7
    assert len(warnings) == 1
    assert "step-000000009.json is damaged" in warnings[0]


def test_a_damaged_checkpoint_is_deleted_when_the_next_is_saved(folder: Path) -> None:
    (folder / "step-000000009.safetensors").write_bytes(b"")
    save_checkpoint(folder, checkpoint(8))
    assert [name for name in names(folder) if name.endswith("json")] == ["step-000000007.json", "step-000000008.json"]


def test_only_damaged_checkpoints_are_an_error(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.write_text("{}")
    with pytest.raises(CheckpointError, match=rf"every checkpoint in .* is damaged; delete {folder.parent} and train"):
        load(folder)


def test_a_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file is in the way")
    with pytest.raises(CheckpointError, match=r"cannot be written .*; free space, then continue with --resume"):
        save_checkpoint(tmp_path / "checkpoints", checkpoint(1))


def test_the_newest_healthy_checkpoint_is_found(folder: Path) -> None:
    save_checkpoint(folder, checkpoint(11, healthy=False))
    assert newest_healthy(folder) == folder / "step-000000009.safetensors"


def test_the_checkpoint_of_another_run_is_refused_with_every_difference(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        check_identity(tmp_path, IDENTITY | {"steps": "9"}, IDENTITY | {"seed": "6", "torch": "2.0"})
    assert str(error.value).splitlines()[1:4] == [
        "  seed: 5 there, 6 here",
        "  torch: none there, 2.0 here",
        "  steps: 9 there, none here",
    ]
    assert f"or delete {tmp_path} to start again" in str(error.value)


def test_a_checkpoint_is_json_and_safetensors(folder: Path) -> None:
    document = json.loads((folder / "step-000000009.json").read_text())
    assert document["step"] == 9
    assert (folder / "step-000000009.safetensors").read_bytes()[8:9] == b"{"


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with (
        lock_folder(tmp_path),
        pytest.raises(CheckpointError, match="another process trains in"),
        lock_folder(tmp_path),
    ):
        pass
