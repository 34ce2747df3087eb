"""State: kept when it can be, and never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.state import State

DIGEST = "sha256:" + "5" * 64


def test_a_written_document_is_read_back(tmp_path: Path) -> None:
    State(folder=tmp_path).write("kind", DIGEST, "cpu", {"value": 1})
    document = State(folder=tmp_path).read("kind", DIGEST, "cpu")
    assert document == {"model_digest": DIGEST, "numerics": "cpu", "value": 1}


def test_nothing_is_stored_without_a_folder() -> None:
    State(folder=None).write("kind", DIGEST, "cpu", {})
    assert State(folder=None).read("kind", DIGEST, "cpu") is None


def test_an_absent_document_is_none_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert State(folder=tmp_path).read("kind", DIGEST, "cpu") is None
    assert caplog.text == ""


def test_a_folder_of_another_owner_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    State(folder=tmp_path).write("kind", DIGEST, "cpu", {})
    monkeypatch.setattr(Path, "stat", refuse)
    assert State(folder=tmp_path).read("kind", DIGEST, "cpu") is None
    assert "cannot be used ([Errno 13] Permission denied); measuring again" in caplog.text
