"""`fount datasets`: list the data sets a server can augment, or show one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import grpc
from google.protobuf import json_format

from fount.cli.options import server_options
from fount.cli.output.text import align, echo_json, plain, table
from fount.client.channel import CHANNEL_OPTIONS
from fount.client.status import error_of
from fount.v1 import dataset_pb2, dataset_pb2_grpc

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
    found = _fetch(name, server, timeout_s)
    if as_json:
        values = [json_format.MessageToDict(each, preserving_proto_field_name=True) for each in found]
        echo_json(values if name is None else values[0])
        return
    for line in _list(found) if name is None else _show(found[0]):
        click.echo(line.rstrip())


def _fetch(name: str | None, server: str, timeout_s: float) -> Sequence[dataset_pb2.Dataset]:
    with grpc.insecure_channel(server, CHANNEL_OPTIONS) as channel:
        stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        try:
            if name is None:
                return stub.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=timeout_s).datasets
            return [stub.GetDataset(dataset_pb2.GetDatasetRequest(name=name), timeout=timeout_s).dataset]
        except grpc.RpcError as error:
            raise error_of(error, server) from error


def _list(found: Sequence[dataset_pb2.Dataset]) -> Iterator[str]:
    """Make a line per data set; the problem of one that cannot be read is appended."""
    rows: list[tuple[str, ...]] = [("DATA SET", "FORMAT", "CLASSES", "SHAPE", "ROWS", "CLASSIFIER")]
    for each in found:
        splits = ", ".join(f"{split.name} {split.rows:,}" for split in each.splits)
        cells = (each.name, each.format, str(len(each.classes) or ""), _shape(each), splits, each.classifier)
        rows.append(tuple(cell or "-" for cell in cells))
    for row, problem in zip(align(rows), ["", *(each.problem for each in found)], strict=True):
        yield "  ".join([*row, plain(problem)])


def _show(each: dataset_pb2.Dataset) -> Iterator[str]:
    facts = (
        ("Data set", each.name),
        ("Digest", each.digest),
        ("Format", each.format),
        ("Image", f"{_shape(each) or '-'} uint8"),
        ("Classifier", each.classifier),
        ("Licence", each.licence),
        ("Problem", each.problem),
    )
    yield from (f"{title:<12} {plain(text)}" for title, text in facts if text)
    splits = list(each.splits)
    for title, names, counts in (
        ("CLASS", each.classes, [split.class_counts for split in splits]),
        ("GROUP", each.groups, [split.group_counts for split in splits]),
    ):
        if names:
            header = (title, *(split.name.upper() for split in splits))
            rows = [(name, *(f"{column[k]:,}" for column in counts)) for k, name in enumerate(names)]
            yield ""
            yield from table([header, *rows, ("all", *(f"{split.rows:,}" for split in splits))])


def _shape(each: dataset_pb2.Dataset) -> str:
    return " × ".join(map(str, each.sample_spec.dims))
