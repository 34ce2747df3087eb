"""What holds data of others is closed to other users, on every path and whatever the umask."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fount.v1 import augmentation_pb2
from service.cli.options import embedded_pool, worker_options
from service.evaluation.jobs.evaluations import Evaluations
from service.evaluation.jobs.runner import _prepare_folder
from service.rpc.plan_store import plan_store_at
from service.rpc.tickets import TicketKeys


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """A umask that closes nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_paths(folder: Path) -> list[str]:
    """What other users can read, of a folder and everything in it."""
    return sorted(path.name for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077)


@pytest.mark.parametrize("exists", [False, True], ids=["new", "made before"])
def test_a_state_folder_is_closed_at_the_start(tmp_path: Path, exists: bool) -> None:
    state = tmp_path / "state"
    if exists:
        state.mkdir(0o755)
    (tmp_path / "digits-vae-1.0.mar").touch()

    @click.command()
    @worker_options
    @click.pass_context
    def command(context: click.Context, /, **_: object) -> None:
        embedded_pool(context)

    result = CliRunner().invoke(command, ["--archives", str(tmp_path), "--state-dir", str(state)])
    assert (result.exit_code, open_paths(state)) == (0, [])


@pytest.mark.parametrize("exists", [False, True], ids=["new", "made before"])
async def test_databases_and_their_journals_are_closed(tmp_path: Path, exists: bool) -> None:
    tmp_path.chmod(0o700)
    if exists:
        for name in ("evaluations.db", "evaluations-queue.db"):
            with closing(sqlite3.connect(tmp_path / name)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        (tmp_path / "evaluations.db-wal").touch(0o644)
    evaluations = Evaluations(f"sqlite:///{tmp_path}/evaluations.db")
    await evaluations.start()
    try:
        await evaluations.usage()
        assert {path.name for path in tmp_path.iterdir()} > {"evaluations.db", "evaluations.db-wal"}
        assert open_paths(tmp_path) == []
    finally:
        await evaluations.close()


def test_plans_are_closed(tmp_path: Path) -> None:
    folder = tmp_path / "plans"
    folder.mkdir(0o755)
    store = plan_store_at(folder)
    plan = augmentation_pb2.Plan(id="a1")
    plan.expire_time.FromSeconds(4_000_000_000)
    store.put("ada", plan)
    assert (len(list(folder.rglob("*"))), open_paths(folder)) == (2, [])


def test_ticket_keys_are_closed(tmp_path: Path) -> None:
    file = tmp_path / "ticket-keys"
    file.write_text(f"a:{'0' * 64}\n")
    TicketKeys.at(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_work_of_runners_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir(0o777)
    _prepare_folder(folder)
    assert open_paths(folder) == []
