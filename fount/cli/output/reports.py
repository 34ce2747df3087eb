"""Where reports of evaluations go: files whose ending says what they hold, each whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from fount.cli.output.writer import writing
from fount.client.sync import Client
from fount.evaluation.request import REPORT_FORMATS, Format

__all__ = ["REPORT_FILE", "check_places", "write_reports"]

_ENDINGS = " or ".join(f".{name}" for name in REPORT_FORMATS)


class _ReportFile(click.ParamType[Path]):
    """A path that ends with a format's name."""

    name = "file"
    envvar_list_splitter = os.path.pathsep

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read a path."""
        path = Path(value)
        if _format(path) not in REPORT_FORMATS:
            self.fail(f"{str(value)!r} says no format: let it end with {_ENDINGS}", param, ctx)
        return path


REPORT_FILE = _ReportFile()
"""What an option for reports takes."""


def check_places(paths: Sequence[Path]) -> None:
    """Say what can be known to be wrong with the places, before anything is asked for.

    Raises:
        UsageError: a file could not be written there.
    """
    for path in paths:
        if path.is_dir():
            raise click.UsageError(f"{path} cannot be written: it is a folder")
        if not path.parent.is_dir():
            raise click.UsageError(f"{path} cannot be written: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise click.UsageError(f"{path} cannot be written: no permission to write in {path.parent}")


def write_reports(client: Client, id: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Fetch the report of an evaluation for every file, and write it.

    Returns:
        One {"path", "bytes", "redacted"} a file.

    Raises:
        OutputError: one cannot be written.
        FountError: one did not come.
    """
    written = []
    for path in paths:
        report = client.evaluation_report(id, _format(path))
        _write(path, report.data)
        written.append({"path": str(path), "bytes": len(report.data), "redacted": report.redacted})
    return written


def _format(path: Path) -> Format:
    """What the path's ending names, which need not be a format."""
    return cast(Format, path.suffix.lower().removeprefix("."))


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
