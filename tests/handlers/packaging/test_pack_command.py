"""`fount pack`: by name or by path, one or all, and what happens to those that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from handlers.cli.pack import pack


def run(store: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(pack, [*arguments, "--model-store", str(store), "--out", str(out)])


def archives(out: Path) -> list[str]:
    return sorted(file.name for file in out.glob("*.mar"))


@pytest.fixture
def twins(store: Path) -> Path:
    """Two folders of one name and version, one of another version, and a broken one."""
    shutil.copytree(store / "small", store / "twin")
    shutil.copytree(store / "small", store / "newer")
    text = (store / "small/model.yaml").read_text()
    (store / "newer/model.yaml").write_text(text.replace("version: '1.0'", "version: '2.0'"))
    (store / "broken").mkdir()
    (store / "broken/model.yaml").write_text("name: broken\n")
    return store


def test_two_folders_of_one_name_and_version_are_refused_before_anything_is_written(twins: Path, tmp_path) -> None:
    told = run(twins, tmp_path / "out", "--all")
    assert told.exit_code == 1
    assert f"{twins}/small and {twins}/twin are both small 1.0; give one another name or version" in told.output
    assert archives(tmp_path / "out") == []


def test_keep_going_packs_the_others(twins: Path, tmp_path: Path) -> None:
    told = run(twins, tmp_path / "out", "--all", "--keep-going")
    assert told.exit_code == 1
    assert archives(tmp_path / "out") == ["small-2.0.mar"]
    assert "Error: " in told.stderr
    assert "small 2.0" in told.stdout


def test_json_holds_the_packed_and_the_refused(twins: Path, tmp_path: Path) -> None:
    told = json.loads(run(twins, tmp_path / "out", "--all", "--keep-going", "--json").stdout)
    packed = [each["path"] for each in told if "path" in each]
    refused = {each["folder"]: each.get("name") for each in told if "error" in each}
    assert packed == [f"{tmp_path}/out/small-2.0.mar"]
    assert refused == {f"{twins}/broken": None, f"{twins}/small": "small", f"{twins}/twin": "small"}


def test_a_model_named_alone_has_no_twin(twins: Path, tmp_path: Path) -> None:
    assert run(twins, tmp_path / "out", "small").exit_code == 0
    assert archives(tmp_path / "out") == ["small-1.0.mar"]


def test_a_path_names_a_folder_outside_the_store(store: Path, tmp_path: Path) -> None:
    told = run(tmp_path / "nowhere", tmp_path / "out", f"{store}/small")
    assert told.exit_code == 0, told.output
    assert archives(tmp_path / "out") == ["small-1.0.mar"]


def test_a_folder_named_twice_is_packed_once(store: Path, tmp_path: Path) -> None:
    told = run(store, tmp_path / "out", "small", f"{store}/small", "--json")
    assert len(json.loads(told.stdout)) == 1


def test_a_path_without_a_card_is_told_with_the_remedy(tmp_path: Path) -> None:
    told = run(tmp_path, tmp_path / "out", f"{tmp_path}/nothing")
    assert told.exit_code == 1
    assert "has no model.yaml; name a model folder, as `fount new` writes one" in told.output


def test_a_folder_here_is_not_taken_for_one_of_the_store(store: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(store)
    told = run(tmp_path, tmp_path / "out", "small")
    assert told.exit_code == 1
    assert "has no model 'small'; it has none. The folder here is ./small." in told.output


def test_a_store_without_models_is_told_with_the_remedy(tmp_path: Path) -> None:
    told = run(tmp_path, tmp_path / "out", "--all")
    assert told.exit_code == 1
    assert "or begin one with `fount new NAME`" in told.output


def test_a_model_named_as_a_store_is_told_which_folder_to_name(store: Path, tmp_path: Path) -> None:
    told = run(store / "small", tmp_path / "out", "--all")
    assert told.exit_code == 1
    assert f"name the folder it lies in: --model-store {store}\n" in told.output


def test_a_hidden_folder_is_no_model(store: Path, tmp_path: Path) -> None:
    (store / "small").rename(store / ".small.x1y2")
    assert f"In {store}: none." in run(store, tmp_path / "out").output
    assert "has no model; name another" in run(store, tmp_path / "out", "--all").output
