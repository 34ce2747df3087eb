"""Packing a model store before it is served."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from service.cli.model_store import archives_folder, model_folders, pack_store
from service.cli.options import archives_options, choose_archives
from service.domain import ModelState
from service.errors import SetupError

SHIPPED = Path(__file__).parents[3] / "model_store"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED / "digits-vae", tmp_path / "store/digits-vae")
    return tmp_path / "store"


def break_card(store: Path, name: str, text: str) -> None:
    (store / name).mkdir()
    (store / name / "model.yaml").write_text(text)


def test_valid_models_are_packed_and_broken_ones_are_listed(store: Path, tmp_path: Path) -> None:
    break_card(store, "broken", "name: broken\n")
    shutil.copytree(store / "digits-vae", store / "unchecked")
    text = (store / "unchecked/model.yaml").read_text()
    (store / "unchecked/model.yaml").write_text(text.replace("name: digits-vae\n", "name: unchecked\n", 1))
    (store / "unchecked/golden.safetensors").unlink()
    packed = pack_store(store, tmp_path / "state")
    assert [file.name for file in packed.archives.iterdir()] == ["digits-vae-1.0.mar"]
    assert [(offer.name, offer.version, offer.state) for offer in packed.refused] == [
        ("unchecked", "1.0", ModelState.UNAVAILABLE)
    ]
    assert "fount check" in packed.refused[0].reason
    assert list(packed.nameless) == [f"{store}/broken"]


def test_the_archive_of_a_removed_model_is_deleted(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "digits-vae", store / "newer")
    text = (store / "newer/model.yaml").read_text()
    (store / "newer/model.yaml").write_text(text.replace("version: '1.0'", "version: '2.0'"))
    first = pack_store(store, tmp_path / "state")
    assert sorted(file.name for file in first.archives.iterdir()) == ["digits-vae-1.0.mar", "digits-vae-2.0.mar"]
    shutil.rmtree(store / "newer")
    assert [file.name for file in pack_store(store, tmp_path / "state").archives.iterdir()] == ["digits-vae-1.0.mar"]


def test_an_unchanged_model_is_not_written_again(store: Path, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "digits-classifier", store / "digits-classifier")
    archives = pack_store(store, tmp_path / "state").archives
    before = {file.name: file.stat().st_ino for file in archives.iterdir()}
    with (store / "digits-vae/model.yaml").open("a") as card:
        card.write("# another\n")
    pack_store(store, tmp_path / "state")
    assert {file.name: file.stat().st_ino == before[file.name] for file in archives.iterdir()} == {
        "digits-classifier-1.0.mar": True,
        "digits-vae-1.0.mar": False,
    }


def test_temporary_files_of_a_killed_packing_are_deleted(store: Path, tmp_path: Path) -> None:
    archives = archives_folder(store, tmp_path / "state")
    archives.mkdir(parents=True)
    (archives / ".digits-vae-1.0.mar.x1y2").write_bytes(b"PK")
    pack_store(store, tmp_path / "state")
    assert [file.name for file in archives.iterdir()] == ["digits-vae-1.0.mar"]


@pytest.fixture
def usual_hangup() -> Iterator[None]:
    """Set the default action of SIGHUP, even if these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("usual_hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_the_packing_process_too(store: Path, tmp_path: Path, monkeypatch, number: int) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntrap 'touch {ended}; exit 1' TERM\ntouch {started}\nwhile :; do sleep 0.05; done\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))

    def stop() -> None:
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    before = signal.getsignal(number)
    with pytest.raises(SystemExit, match=r"^0$"):
        pack_store(store, tmp_path / "state")
    assert (ended.exists(), signal.getsignal(number)) == (True, before)


def test_a_hidden_folder_is_not_a_model(store: Path, tmp_path: Path) -> None:
    break_card(store, ".shapes.x1y2", "name: shapes\n")
    assert (pack_store(store, tmp_path / "state").nameless, model_folders(store)) == ({}, [store / "digits-vae"])


def test_two_models_of_one_name_and_version_are_one_offer(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "digits-vae", store / "duplicate")
    shutil.copytree(SHIPPED / "digits-classifier", store / "digits-classifier")
    (offer,) = pack_store(store, tmp_path / "state").refused
    assert (offer.name, offer.version) == ("digits-vae", "1.0")
    assert f"{store}/digits-vae and {store}/duplicate are both digits-vae 1.0" in offer.reason


def test_a_store_with_only_broken_models_is_an_error_with_every_reason(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for name in ("one", "two"):
        break_card(tmp_path / "store", name, "name: x\n")
    with pytest.raises(SetupError, match=r"no model of .*\n.*/one/model.yaml: 12 problems\n(.|\n)*/two/model.yaml: "):
        pack_store(tmp_path / "store", tmp_path / "state")


def test_a_folder_named_like_a_package_in_the_current_directory_is_not_imported(
    store: Path, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "here/fount").mkdir(parents=True)
    (tmp_path / "here/fount/__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path / "here")
    assert pack_store(store, tmp_path / "state").refused == ()


@pytest.mark.parametrize(("name", "remedy"), [("nowhere", "is not a folder"), ("empty", "create one with `fount new")])
def test_an_error_for_an_invalid_store_contains_the_remedy(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SetupError, match=remedy):
        pack_store(tmp_path / name, tmp_path / "state")


def test_a_model_given_as_a_store_gets_the_parent_folder_suggested(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=f"name its parent folder: --model-store {store}$"):
        pack_store(store / "digits-vae", tmp_path / "state")


def test_an_error_of_the_packing_process_is_reported(store: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SetupError, match="cannot be written"):
        pack_store(store, tmp_path / "state")


OUTPUTS = {
    "invalid UTF-8": b"\xff\xfe",
    "deep nesting": b"[" * 100_000,
    "no list": b"{}",
    "no models": b"[1]",
    "wrong types": b'[{"folder": 5, "error": null}]',
    "text before it": b"hello\n[]",
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_foreign_output_of_the_packing_process_is_reported(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: bytes
) -> None:
    (tmp_path / "output").write_bytes(output)
    (tmp_path / "python").write_text(f"#!/bin/sh\ncat {tmp_path / 'output'}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SetupError, match="ended with code 0, and printed something else than its result"):
        pack_store(store, tmp_path / "state")


def test_a_missing_extra_of_the_packing_process_is_reported(store: Path, tmp_path: Path, monkeypatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "Error: \\`fount pack\\` needs the extra \\`torch\\`" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SetupError, match="store cannot be packed: `fount pack` needs the extra `torch`"):
        pack_store(store, tmp_path / "state")


def test_every_store_has_its_own_archives_folder(tmp_path: Path) -> None:
    folders = {archives_folder(tmp_path / name, tmp_path) for name in ("a", "b", "./a", "a/")}
    assert len(folders) == 2
    assert all(folder.parent == tmp_path / "archives" for folder in folders)


@click.command()
@archives_options
@click.option("--state-dir", type=click.Path(path_type=Path), default=Path("state"))
@click.pass_context
def probe(context: click.Context, **_: object) -> None:
    click.echo(str(choose_archives(context).archives))


def test_archives_and_model_store_exclude_each_other(store: Path) -> None:
    result = CliRunner().invoke(probe, ["--archives", "build/archives", "--model-store", str(store)])
    assert result.exit_code == 2
    assert "give one" in result.output


def test_a_folder_without_archives_and_store_gets_both_options_suggested(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(probe)
    assert result.exit_code == 1
    assert "neither build/archives nor model_store is a folder here" in result.output
    assert "--model-store, or" in result.output


def test_archives_are_the_default(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "build/archives").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(probe).output == "build/archives\n"


def test_a_store_is_suggested_where_archives_are_missing(store: Path, tmp_path: Path, monkeypatch) -> None:
    store.rename(tmp_path / "model_store")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(probe)
    assert result.exit_code == 1
    assert "serve its models with --model-store model_store" in result.output


def test_it_reports_what_it_packs_and_what_it_does_not(store: Path, tmp_path: Path) -> None:
    break_card(store, "broken", "name: x\n")
    result = CliRunner().invoke(probe, ["--model-store", str(store), "--state-dir", str(tmp_path / "state")])
    assert f"packing broken, digits-vae of {store}" in result.stderr
    assert "packed 1 of 2 models" in result.stderr
    assert f"warning: not served: {store}/broken/model.yaml: 12 problems\n" in result.stderr
