"""`fount pull` as tests run it, in this process or one of its own, and the files of an export."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from fount.export import parts
from tests.contract.commands import fount

# Parts of 10 rows, so that a few rows make several.
SMALL = "from fount.export import parts; parts._MAX_ROWS = 10;"
FOUNT = [sys.executable, "-c", f"{SMALL} from fount.cli.main import main; main(prog_name='fount')"]
FORMATS = ["parquet", "webdataset", "npz", "folder"]


def use_small_parts(monkeypatch):
    """Make parts of 10 rows."""
    monkeypatch.setattr(parts, "_MAX_ROWS", 10)


def pull(*arguments, out="out", format="npz"):
    return fount("pull", "plan.yaml", "--out", out, "--format", format, *arguments)


def contents(folder):
    """Every file of an export, by its name, without the metadata."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and ".fount" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def data_of(folder):
    return {name: data for name, data in contents(folder).items() if name != "manifest.json"}


def manifest(folder="out"):
    return json.loads(Path(folder, "manifest.json").read_text())


def ticket():
    """Write a ticket: the same plan every time, independent of the folder."""
    fount("plan", "plan.yaml", "--ticket-out", "plan.ticket")
    return "plan.ticket"


@contextmanager
def running(*arguments, preexec_fn=None):
    process = subprocess.Popen(
        [*FOUNT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=preexec_fn
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_parts(folder, count, process):
    """Wait until the journal has so many parts."""
    journal = Path(folder, ".fount", "journal.jsonl")
    while not journal.exists() or journal.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
