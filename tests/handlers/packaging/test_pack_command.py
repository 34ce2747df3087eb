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
def duplicates(store: Path) -> Path:
    """Two folders of one name and version, one of another version, and a broken one."""
    shutil.copytree(store / "small", store / "small-copy")
    shutil.copytree(store / "small", store / "newer")
    text = (store / "small/model.yaml").read_text()
    (store / "newer/model.yaml").write_text(text.replace("version: '1.0'", "version: '2.0'"))
    (store / "broken").mkdir()
    (store / "broken/model.yaml").write_text("name: broken\n")
    return store


def test_two_folders_of_one_name_and_version_are_refused_before_anything_is_written(duplicates: Path, tmp_path) -> None:
    result = run(duplicates, tmp_path / "out", "--all")
    assert result.exit_code == 1
    assert (
        f"{duplicates}/small and {duplicates}/small-copy are both small 1.0; change the name or version of one"
        in result.output
    )
    assert archives(tmp_path / "out") == []


def test_keep_going_packs_the_others(duplicates: Path, tmp_path: Path) -> None:
    result = run(duplicates, tmp_path / "out", "--all", "--keep-going")
    assert result.exit_code == 1
    assert archives(tmp_path / "out") == ["small-2.0.mar"]
    assert "Error: " in result.stderr
    assert "small 2.0" in result.stdout


def test_json_holds_the_packed_and_the_refused(duplicates: Path, tmp_path: Path) -> None:
    result = json.loads(run(duplicates, tmp_path / "out", "--all", "--keep-going", "--json").stdout)
    packed = [each["path"] for each in result if "path" in each]
    refused = {each["folder"]: each.get("name") for each in result if "error" in each}
    assert packed == [f"{tmp_path}/out/small-2.0.mar"]
    assert refused == {
        f"{duplicates}/broken": None,
        f"{duplicates}/small": "small",
        f"{duplicates}/small-copy": "small",
    }


def test_a_model_named_alone_is_no_duplicate(duplicates: Path, tmp_path: Path) -> None:
    assert run(duplicates, tmp_path / "out", "small").exit_code == 0
    assert archives(tmp_path / "out") == ["small-1.0.mar"]


def test_a_path_names_a_folder_outside_the_store(store: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere", tmp_path / "out", f"{store}/small")
    assert result.exit_code == 0, result.output
    assert archives(tmp_path / "out") == ["small-1.0.mar"]


def test_a_folder_named_twice_is_packed_once(store: Path, tmp_path: Path) -> None:
    result = run(store, tmp_path / "out", "small", f"{store}/small", "--json")
    assert len(json.loads(result.stdout)) == 1


def test_a_path_without_a_card_is_refused_with_the_remedy(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "out", f"{tmp_path}/nothing")
    assert result.exit_code == 1
    assert "has no model.yaml; name a model folder, as `fount new` writes one" in result.output


def test_a_folder_here_is_not_confused_with_one_of_the_store(store: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(store)
    result = run(tmp_path, tmp_path / "out", "small")
    assert result.exit_code == 1
    assert "has no model 'small'; it has none. Use ./small for the folder here." in result.output


def test_a_store_without_models_is_refused_with_the_remedy(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "out", "--all")
    assert result.exit_code == 1
    assert "or create one with `fount new NAME`" in result.output


def test_a_model_folder_given_as_store_is_refused_with_the_remedy(store: Path, tmp_path: Path) -> None:
    result = run(store / "small", tmp_path / "out", "--all")
    assert result.exit_code == 1
    assert f"name the folder that contains it: --model-store {store}\n" in result.output


def test_a_hidden_folder_is_not_a_model(store: Path, tmp_path: Path) -> None:
    (store / "small").rename(store / ".small.x1y2")
    assert f"In {store}: none." in run(store, tmp_path / "out").output
    assert "has no model; name another" in run(store, tmp_path / "out", "--all").output
