"""What a terminal cannot show is escaped, and what the system refuses is one sentence, for every command."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import fount.cli.main as main_module
from fount.cli.main import main

LONG = "a" * 300
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="this system has no /dev/full")


def run(monkeypatch: pytest.MonkeyPatch, command: click.Command, charset: str = "utf-8") -> Result:
    """Run a command as one of an extra."""
    monkeypatch.setitem(sys.modules, "somewhere", type(sys)("somewhere"))
    monkeypatch.setattr(sys.modules["somewhere"], "serve", command, raising=False)
    found = [EntryPoint("serve", "somewhere:serve", "fount.commands")]
    monkeypatch.setattr(main_module, "entry_points", lambda group, name: found)
    return CliRunner(charset=charset).invoke(main, ["serve"])


PRINTED = {
    "ascii": rb"8\xd78 \u732b \udcff",
    "latin-1": b"8\xd78 " + rb"\u732b \udcff",
    "utf-8": "8×8 猫 ".encode() + rb"\udcff",
}


@pytest.mark.parametrize(("charset", "printed"), PRINTED.items(), ids=PRINTED.keys())
def test_characters_that_an_encoding_lacks_are_escaped(
    monkeypatch: pytest.MonkeyPatch, charset: str, printed: bytes
) -> None:
    @click.command()
    def serve() -> None:
        click.echo("8×8 猫 \udcff")
        click.echo("8×8 猫 \udcff", err=True)

    result = run(monkeypatch, serve, charset)
    assert (result.exit_code, result.stdout_bytes, result.stderr_bytes) == (0, printed + b"\n", printed + b"\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The output cannot be written: No space left on device."),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a/b"), "'a/b' cannot be used: File name too long."),
        (PermissionError(errno.EACCES, "Permission denied", Path("x")), "'x' cannot be used: Permission denied."),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), r"'\udcff' is not text in the encoding"),
    ],
    ids=["output", "long name", "permission", "no text"],
)
def test_what_the_system_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    @click.command()
    def serve() -> None:
        raise error

    result = run(monkeypatch, serve)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


@needs_full
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["sample", "--help"], ["new", "my-gan", "--size", "4", "--channels", "1"]],
    ids=["help", "version", "help of a command", "new"],
)
def test_a_full_output_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "fount", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, text=True, check=False)
    expected = "Error: The output cannot be written: No space left on device. Free some space, or write it elsewhere.\n"
    assert (done.returncode, done.stderr) == (1, expected)


@needs_full
def test_a_full_error_output_leaves_the_exit_code(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "fount", "models", "--server", "127.0.0.1:1"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["new", LONG],
        ["new", "my-gan", "--model-store", LONG],
        ["check", LONG],
        ["check", f"./{LONG}"],
        ["check", "m", "--model-store", LONG],
        ["pack", LONG],
        ["pack", "--all", "--model-store", LONG],
        ["convert", "a.ckpt", "--out", LONG],
        ["convert", "a.ckpt", "--out", f"{LONG}/b"],
        ["convert", LONG, "--out", "b"],
        ["tune", LONG],
        ["quality", LONG],
        ["serve", "--model-store", LONG],
        ["serve", "--archives", LONG],
        ["augment", LONG, "--out", "a.png"],
        ["plan", LONG],
        ["evaluate", "m", "--report", f"{LONG}.html"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_name_that_is_too_long_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ckpt").write_bytes(b"\x80")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert "Error: " in result.stderr
    assert os.listdir(tmp_path) == ["a.ckpt"]
