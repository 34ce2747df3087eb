"""Write a stream of texts to a file, a folder, or the terminal.

A single text is written as it is. Each of several follows a line `==> sample 5, two <==`, with its index and class; a
folder has a file for each, which holds the text alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from fount.cli.output.paths import check_output_file
from fount.cli.output.sample_writers import SampleRun, SampleWriter, is_folder, open_output
from fount.cli.output.text import plain
from fount.errors import OutputError, output_errors
from fount.files import atomic_path
from fount.sampling.types import Chunk

__all__ = ["TextList", "TextPrinter", "open_texts"]


def open_texts(path: str, run: SampleRun) -> SampleWriter:
    """Select a writer of texts by the path, "*.txt" or a folder, and check it before any sample is requested."""
    if is_folder(path):
        return open_output(path, run)
    if Path(path).suffix.lower() != ".txt":
        raise OutputError(f"{path} cannot hold texts: write to a .txt file, or a folder ending with /")
    check_output_file(Path(path))
    return _TextFileWriter(Path(path), run)


class _TextFileWriter(SampleWriter):
    """One UTF-8 file; of a single sample it holds the bytes of its text alone."""

    def __init__(self, path: Path, run: SampleRun) -> None:
        super().__init__(path, run)
        self._resources = ExitStack()
        with output_errors(path):
            self._file = self._resources.enter_context(self._resources.enter_context(atomic_path(path)).open("wb"))

    def _add(self, chunk: Chunk) -> None:
        if self._run.count == 1:
            self._file.write(chunk.texts[0].encode())
            return
        for line in _with_headers(chunk, self._run):
            self._file.write(f"{line}\n".encode())

    def _finish(self) -> None:
        self._resources.close()

    def abandon(self) -> None:
        abandoned = OutputError(f"{self._path} was abandoned")  # an exception makes `atomic_path` remove the file
        with suppress(OSError):
            self._resources.__exit__(OutputError, abandoned, None)


class TextPrinter(SampleWriter):
    """Prints texts to stdout as they arrive; to a terminal without characters that would control it."""

    def __init__(self, run: SampleRun) -> None:
        super().__init__(Path("-"), run)

    def _add(self, chunk: Chunk) -> None:
        parts = [chunk.texts[0].removesuffix("\n")] if self._run.count == 1 else _with_headers(chunk, self._run)
        for part in parts:
            click.echo("\n".join(map(plain, part.split("\n"))) if _is_terminal() else part)

    def _finish(self) -> None:
        """Do nothing: all is printed."""

    def abandon(self) -> None:
        """Do nothing: what is printed remains."""


class TextList(SampleWriter):
    """Keeps texts, for a result in JSON."""

    def __init__(self, run: SampleRun) -> None:
        super().__init__(Path("-"), run)
        self.texts: list[str] = []

    def _add(self, chunk: Chunk) -> None:
        self.texts += chunk.texts

    def _finish(self) -> None:
        """Do nothing: all is kept."""

    def abandon(self) -> None:
        """Forget the texts."""
        self.texts.clear()


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _with_headers(chunk: Chunk, run: SampleRun) -> Iterator[str]:
    """Yield a header, a text and an empty line for each sample, without their last ends of line."""
    names, labels = run.class_names, None if chunk.labels is None else chunk.labels.tolist()
    for row, text in enumerate(chunk.texts):
        label = None if labels is None else labels[row]
        name = "" if label is None else f", {plain(names[label]) if label < len(names) else label}"
        yield f"==> sample {chunk.start_index + row}{name} <=="
        yield f"{text.removesuffix(chr(10))}\n"
