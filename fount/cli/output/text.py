"""Write results of commands as text: JSON, tables, and text from a server made safe for a terminal."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from fount.names import numbers_read_as_names

__all__ = [
    "align", "echo_result", "error_is_terminal", "escape_unknown_characters", "note_numbers_read_as_names",
    "output_is_unicode", "plain", "table",
]  # fmt: skip


class _AsciiOutput(io.TextIOWrapper):
    """An output for ASCII alone, to which click would otherwise write UTF-8."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.buffer, encoding="utf-8", line_buffering=True)
        self._stream = stream  # it closes its buffer when nothing refers to it

    def write(self, text: str, /) -> int:
        """Write text with escapes."""
        return super().write(text.encode("ascii", "backslashreplace").decode())


def escape_unknown_characters() -> None:
    """Print characters that the terminal's encoding lacks, as in names of classes, by backslash escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if codecs.lookup(stream.encoding).name == "ascii":
                setattr(sys, name, _AsciiOutput(stream))


def output_is_unicode() -> bool:
    """Whether standard output can show every character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "utf" in encoding.lower() and not isinstance(sys.stdout, _AsciiOutput)


def echo_result(value: object, lines: Iterable[str], *, as_json: bool, err: bool = False) -> None:
    """Write a result to stdout, or with `err` to stderr: one JSON value, or lines of text."""
    for line in [json.dumps(value, indent=2)] if as_json else lines:
        click.echo(line, err=err)


def plain(text: str) -> str:
    """Make one line of a server's text, without characters that would move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def align(rows: Sequence[Sequence[str]], *, right_from: int | None = None) -> Iterator[tuple[str, ...]]:
    """Pad cells, which may be text of a server, to the widths of their columns; on the left from `right_from` on."""
    cells = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield tuple(
            cell.ljust(width) if right_from is None or place < right_from else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )


def table(rows: Sequence[Sequence[str]], *, right_from: int | None = None) -> Iterator[str]:
    """Make the lines of a table; arguments as in `align`."""
    for cells in align(rows, right_from=right_from):
        yield "  ".join(cells).rstrip()


def note_numbers_read_as_names(texts: Iterable[str], names: Sequence[str]) -> None:
    """Write to stderr which of the texts a user gave for classes are names of them, though they could be indices."""
    numbers = numbers_read_as_names(texts, names)
    if not numbers:
        return
    shown = ", ".join(f'"{text}" (index {names.index(text)})' for text in numbers[:3])
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    first = numbers[0]
    remedy = f"write '#{first}', in quotes, for index {first}, which is \"{plain(names[int(first)])}\""
    click.echo(f"note: {shown}{more}: taken as names of classes; {remedy}", err=True)


def error_is_terminal() -> bool:
    """Whether stderr is a terminal, where progress bars are shown."""
    return sys.stderr.isatty()
