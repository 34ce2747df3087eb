"""`fount datasets`: the data sets a server can augment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import grpc
from google.protobuf import json_format

from fount.cli.options import echo_json, json_option, plain, server_option, timeout_option
from fount.client.channel import CHANNEL_OPTIONS
from fount.client.status import error_of
from fount.v1 import dataset_pb2, dataset_pb2_grpc

__all__ = ["datasets"]


@click.command()
@click.argument("name", required=False)
@server_option
@timeout_option
@json_option
def datasets(name: str | None, server: str, timeout_s: float, as_json: bool) -> None:
    """List the data sets a server can augment, or show NAME with its classes.

    \b
    Example:
      fount datasets
      fount datasets digits
    """  # noqa: D301  # \b is click's: keep the lines as they are
    found = _ask(name, server, timeout_s)
    if as_json:
        told = [json_format.MessageToDict(each, preserving_proto_field_name=True) for each in found]
        echo_json(told if name is None else told[0])
        return
    for line in _list(found) if name is None else _show(found[0]):
        click.echo(line.rstrip())


def _ask(name: str | None, server: str, timeout_s: float) -> Sequence[dataset_pb2.Dataset]:
    with grpc.insecure_channel(server, CHANNEL_OPTIONS) as channel:
        stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        try:
            if name is None:
                return stub.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=timeout_s).datasets
            return [stub.GetDataset(dataset_pb2.GetDatasetRequest(name=name), timeout=timeout_s).dataset]
        except grpc.RpcError as error:
            raise error_of(error, server) from error


def _list(found: Sequence[dataset_pb2.Dataset]) -> Iterator[str]:
    header = ("DATA SET", "FORMAT", "CLASSES", "SHAPE", "ROWS", "CLASSIFIER")
    for row, each in zip(_aligned([header, *(_row(each) for each in found)]), [None, *found], strict=True):
        yield f"{row}  {plain(each.problem)}" if each and each.problem else row


def _row(each: dataset_pb2.Dataset) -> tuple[str, ...]:
    rows = ", ".join(f"{split.name} {split.rows:,}" for split in each.splits)
    return (
        each.name,
        each.format or "-",
        str(len(each.classes) or "-"),
        _shape(each),
        rows or "-",
        each.classifier or "-",
    )


def _show(each: dataset_pb2.Dataset) -> Iterator[str]:
    facts = (
        ("Data set", each.name),
        ("Digest", each.digest),
        ("Format", each.format),
        ("Image", f"{_shape(each)} uint8"),
        ("Classifier", each.classifier),
        ("Licence", each.licence),
        ("Problem", each.problem),
    )
    yield from (f"{title:<12} {plain(text)}" for title, text in facts if text)
    splits = list(each.splits)
    for what, names, counts in (
        ("CLASS", each.classes, [split.class_counts for split in splits]),
        ("GROUP", each.groups, [split.group_counts for split in splits]),
    ):
        if names:
            header = (what, *(split.name.upper() for split in splits))
            lines = [(name, *(f"{column[k]:,}" for column in counts)) for k, name in enumerate(names)]
            total = ("all", *(f"{split.rows:,}" for split in splits))
            yield ""
            yield from _aligned([header, *lines, total])


def _shape(each: dataset_pb2.Dataset) -> str:
    return " × ".join(map(str, each.sample_spec.dims)) or "-"


def _aligned(cells: Sequence[tuple[str, ...]]) -> Iterator[str]:
    shown = [tuple(map(plain, row)) for row in cells]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
