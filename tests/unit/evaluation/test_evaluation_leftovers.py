"""Work folders that are tidied, and disks that are full."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from service.errors import JobsUnreachable
from service.evaluation.jobs import store_desk
from service.evaluation.jobs.database import insist_on_room
from service.evaluation.jobs.leases import Turn
from service.evaluation.jobs.reaper import Reaper
from service.evaluation.jobs.store_desk import StoreDesk
from service.evaluation.pipeline.reference import keep_within
from service.evaluation.pipeline.reporter import Failed

ENDED, UNDER_WAY, FRESH = ("0" * 26 + each for each in "123")
TURN = Turn(id=ENDED, name="t", specification={}, stage="", attempts=1)


class NothingLeft:
    """Turns and an engine with one evaluation under way, and nothing to take up."""

    runner = "r"

    def not_enqueued(self, most: int) -> list[str]:
        return []

    oldest_queued = ended = not_enqueued

    def silent(self) -> list[str]:
        return []

    running = silent

    def jobs(self, ids: Collection[str]) -> list[Any]:
        return []

    def forget(self, ids: Collection[str]) -> None:
        """Nothing is known."""

    def open_among(self, ids: Collection[str]) -> set[str]:
        return {UNDER_WAY} & set(ids)


def test_it_removes_old_files_of_evaluations_and_nothing_else(tmp_path: Path) -> None:
    for name in (ENDED, UNDER_WAY, FRESH, "references", "thesis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        if name != FRESH:
            os.utime(tmp_path / name, (1, 1))
    left: Any = NothingLeft()
    Reaper(left, left, tmp_path, set).look()
    assert {each.name for each in tmp_path.iterdir()} == {UNDER_WAY, FRESH, "references", "thesis"}


def test_it_removes_references_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a" * 32, "papers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(100))
    keep_within(tmp_path, 10, ())
    assert [each.name for each in tmp_path.iterdir()] == ["papers"]


@pytest.fixture(scope="module")
def full() -> str:
    """What SQLite says when there is no room."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as error:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    return str(error.value)


def test_it_knows_a_full_disk_when_it_is_told_of_one(full: str) -> None:
    with pytest.raises(Failed, match="no space left for the database of evaluations; make room"):
        insist_on_room(JobsUnreachable(f"the database of evaluations does not answer: {full}"))
    insist_on_room(JobsUnreachable("connection refused"))


async def test_it_gives_up_what_cannot_be_kept_but_waits_to_say_so(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Turns:
        room = 3

        def tell(self, *args: object, **kwargs: object) -> bool:
            self.room -= 1
            if self.room > 0:
                raise JobsUnreachable(full)
            return True

        fail = tell

    monkeypatch.setattr(store_desk, "_PAUSE_S", 0.0)
    turns: Any = Turns()
    desk = StoreDesk(turns, TURN, lambda work: work(), asyncio.Event(), lambda turn: None)
    with pytest.raises(Failed, match="no space left"):
        await desk.tell(stage="drawing", done=1, total=2)
    await desk.fail("no space left")
    assert turns.room == 0
