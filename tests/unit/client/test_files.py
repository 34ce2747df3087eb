"""Atomic files: whole or as before, with the requested permissions, and nothing left behind."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from fount.files import atomic_path, atomic_write, make_private_file, make_private_folder, sha256_of


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def interrupt(path):
    with atomic_path(path) as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "not durable"])
def test_it_replaces_a_file(tmp_path, durable):
    (tmp_path / "file").write_bytes(b"before")
    atomic_write(tmp_path / "file", b"after", durable=durable)
    assert (tmp_path / "file").read_bytes() == b"after"
    assert names(tmp_path) == ["file"]


def test_it_leaves_the_file_as_it_was_when_writing_fails(tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_it_keeps_an_existing_file_when_it_may_not_overwrite(tmp_path):
    atomic_write(tmp_path / "file", b"first", overwrite=False)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "file", b"second", overwrite=False)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_it_never_shows_a_secret_to_others(tmp_path):
    with atomic_path(tmp_path / "key", mode=0o600) as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        part.write_bytes(b"secret")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_it_stages_in_another_folder(tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    with atomic_path(tmp_path / "file", staging=staging) as part:
        assert part.parent == staging
    assert names(tmp_path) == ["file", "staging"]
    assert names(staging) == []


def test_it_reports_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "none" / "file", b"")


def test_it_computes_digest_and_size(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 10**6)
    assert sha256_of(tmp_path / "file") == (hashlib.sha256(b"abc" * 10**6).hexdigest(), 3_000_000)


@pytest.fixture
def open_umask():
    """A umask that closes nothing, as some systems have it."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path):
    return oct(path.stat().st_mode & 0o7777)


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("exists", [False, True])
def test_a_private_folder_is_closed_to_others(tmp_path, exists):
    folder = tmp_path / "state"
    if exists:
        folder.mkdir(0o755)
    assert (make_private_folder(folder), mode_of(folder)) == ("", "0o700")


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("exists", [False, True])
def test_a_private_file_is_closed_to_others_and_keeps_its_content(tmp_path, exists):
    file = tmp_path / "file"
    if exists:
        file.write_text("content")
    assert (make_private_file(file), mode_of(file)) == ("", "0o600")
    assert file.read_text() == ("content" if exists else "")


def test_a_folder_for_all_users_stays_open_and_is_named(tmp_path):
    tmp_path.chmod(0o1777)
    assert make_private_folder(tmp_path) == f"{tmp_path} is a folder for all users"
    assert mode_of(tmp_path) == "0o1777"


def test_a_folder_that_cannot_be_closed_is_named(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # as on some network file systems
    assert make_private_folder(tmp_path) == f"{tmp_path} can be read by other users"


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a device or a pipe, and no file"):
        atomic_write(tmp_path / "pipe", b"after")
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["pipe"]
