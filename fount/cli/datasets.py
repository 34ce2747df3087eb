"""`fount datasets`: list the data sets a server can augment, or show one."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import click
from google.protobuf.json_format import MessageToDict

from fount.cli.connection import connected
from fount.cli.options import server_options
from fount.cli.output.text import align, echo_result, plain, table
from fount.client.catalog import DatasetInfo

__all__ = ["datasets"]


@click.command()
@click.argument("name", required=False)
@server_options
def datasets(name: str | None, server: str, timeout_s: float, as_json: bool) -> None:
    """List the data sets a server can augment, or show NAME with its classes.

    \b
    Example:
      fount datasets
      fount datasets digits
    """  # noqa: D301  # \b is click's: keep the lines as they are
    with connected(server, timeout_s) as client:
        found = client.datasets() if name is None else [client.dataset(name)]
        models = {each.name for each in client.models()}
    values = [MessageToDict(each.message, preserving_proto_field_name=True) for each in found]
    if name is None:
        echo_result(values, _list(found, models), as_json=as_json)
    else:
        echo_result(values[0], _show(found[0], models), as_json=as_json)


def _list(found: Sequence[DatasetInfo], models: Container[str]) -> Iterator[str]:
    """Make a line per data set; the problem of one that cannot be read is appended."""
    rows: list[tuple[str, ...]] = [("DATA SET", "FORMAT", "CLASSES", "SHAPE", "ROWS", "CLASSIFIER")]
    for each in found:
        splits = ", ".join(f"{split.name} {split.rows:,}" for split in each.splits)
        cells = (each.name, each.format, str(len(each.classes) or ""), _shape(each), splits)
        rows.append(tuple(cell or "-" for cell in (*cells, _classifier(each, models))))
    for row, problem in zip(align(rows), ["", *(each.problem for each in found)], strict=True):
        yield "  ".join([*row, plain(problem)]).rstrip()


def _show(each: DatasetInfo, models: Container[str]) -> Iterator[str]:
    facts = (
        ("Data set", each.name),
        ("Digest", each.digest),
        ("Format", each.format),
        ("Image", f"{_shape(each) or '-'} uint8"),
        ("Background", each.background),
        ("Classifier", _classifier(each, models)),
        ("Licence", each.licence),
        ("Problem", each.problem),
    )
    yield from (f"{title:<12} {plain(text)}" for title, text in facts if text)
    for title, names, counts in (
        ("CLASS", each.classes, [split.class_counts for split in each.splits]),
        ("GROUP", each.groups, [split.group_counts for split in each.splits]),
    ):
        if names:
            header = (title, *(split.name.upper() for split in each.splits))
            rows = [(name, *(f"{column[k]:,}" for column in counts)) for k, name in enumerate(names)]
            yield ""
            yield from table([header, *rows, ("all", *(f"{split.rows:,}" for split in each.splits))])


def _shape(each: DatasetInfo) -> str:
    return " × ".join(map(str, each.shape))


def _classifier(each: DatasetInfo, models: Container[str]) -> str:
    """Name the classifier; one that is not among the caller's models is marked, for plans go without it."""
    is_absent = each.classifier and each.classifier not in models
    return f"{each.classifier} (not in `fount models`)" if is_absent else each.classifier
