"""Write evaluation reports to files whose suffix selects the format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from fount.cli.output.paths import check_output_file
from fount.client.sync import Client
from fount.errors import OutputError, output_errors
from fount.evaluation.request import REPORT_FORMATS, Format
from fount.files import atomic_write

__all__ = ["REPORT_FILE", "check_report_paths", "write_reports"]


class _ReportFile(click.ParamType[Path]):
    name = "file"
    envvar_list_splitter = os.path.pathsep

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check the suffix of a path."""
        path = Path(value)
        if _format(path) not in REPORT_FORMATS:
            suffixes = " or ".join(f".{name}" for name in REPORT_FORMATS)
            self.fail(f"{str(value)!r} has no supported suffix: let it end with {suffixes}", param, ctx)
        return path


REPORT_FILE = _ReportFile()
"""The parameter type of --report: a path that ends with the name of a format."""


def check_report_paths(paths: Sequence[Path]) -> None:
    """Raise a UsageError for a path that cannot be written, before anything is requested."""
    for path in paths:
        try:
            check_output_file(path)
        except OutputError as error:
            raise click.UsageError(str(error)) from error


def write_reports(client: Client, id: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Fetch the report of an evaluation for every path, and write it; return {"path", "bytes", "redacted"} for each."""
    written = []
    for path in paths:
        report = client.evaluation_report(id, _format(path))
        with output_errors(path):
            atomic_write(path, report.data)
        written.append({"path": str(path), "bytes": len(report.data), "redacted": report.redacted})
    return written


def _format(path: Path) -> Format:
    """Return the path's suffix, which need not be a format."""
    return cast(Format, path.suffix.lower().removeprefix("."))
