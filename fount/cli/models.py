"""`fount models` and `fount model`: what a server offers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from fount.cli.connection import connected
from fount.cli.options import echo_json, json_option, option, plain, server_option, timeout_option
from fount.client.catalog import ModelInfo, ParameterInfo, QualityInfo

__all__ = ["model", "models"]

_UNKNOWN_TERMINAL = (160, 24)  # columns and lines where output goes to a file
_LEAST_REASON = 40  # characters, even where the line is full


@click.command()
@server_option
@timeout_option
@json_option
def models(server: str, timeout_s: float, as_json: bool) -> None:
    """List the models a server offers.

    \b
    Example:
      fount models
      fount models --server gpu-box:50051 --json
    """  # noqa: D301  # \b is click's: keep the lines as they are
    with connected(server, timeout_s) as client:
        found = client.models()
    if as_json:
        echo_json([_as_json(info) for info in found])
        return
    header = ("MODEL", "STATE", "CAN", "CLASSES", "SHAPE", "DESCRIPTION")
    for line in _table(header, found):
        click.echo(line)
    if any(info.state_reason for info in found):
        click.echo("The whole reason a model is not ready: fount model NAME", err=True)


@click.command()
@click.argument("name")
@option("--digest", metavar="SHA256", help="Only the model of this digest.")
@server_option
@timeout_option
@json_option
def model(name: str, digest: str | None, server: str, timeout_s: float, as_json: bool) -> None:
    """Show one model: what it takes, and how well it does.

    NAME is a model's name, or name:version.

    \b
    Example:
      fount model digits-cvae
    """  # noqa: D301  # \b is click's: keep the lines as they are
    with connected(server, timeout_s) as client:
        info = client.model(name, digest=digest)
    if as_json:
        echo_json(_as_json(info))
        return
    for title, text in _facts(info):
        if text:
            click.echo(f"{title:<13} {plain(text)}")


def _as_json(info: ModelInfo) -> dict[str, object]:
    return {**asdict(info), "model": str(info.model)}


def _row(info: ModelInfo) -> tuple[str, ...]:
    named = f"{info.name}:{info.version}{' (default)' if info.is_default else ''}"
    classes = str(len(info.labels)) if info.labels else "-"
    return named, info.state, ", ".join(info.operations), classes, _shape(info) or "-", info.description


def _table(header: tuple[str, ...], found: Sequence[ModelInfo]) -> Iterator[str]:
    """Write a line a model; of one that is not ready, the last column says why, as far as the line has room."""
    cells = [header, *(tuple(map(plain, _row(info))) for info in found)]
    *widths, _ = (max(map(len, column)) for column in zip(*cells, strict=True))
    room = max(_LEAST_REASON, shutil.get_terminal_size(_UNKNOWN_TERMINAL).columns - sum(widths) - 2 * len(widths))
    reasons = ["", *(_cut(plain(info.state_reason), room) for info in found)]
    for (*row, description), reason in zip(cells, reasons, strict=True):
        shown = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join([*shown, reason or description]).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _facts(info: ModelInfo) -> Iterator[tuple[str, str]]:
    yield "Model", f"{info.name}:{info.version}"
    yield "Digest", info.digest
    yield "State", f"{info.state}{f': {info.state_reason}' if info.state_reason else ''}"
    yield "Family", info.family
    yield "Description", info.description
    yield "Can", ", ".join(info.operations)
    yield "Sample", _shape(info)
    yield "Encodings", ", ".join(info.encodings)
    yield "Classes", ", ".join(info.labels)
    for parameter in info.parameters:
        yield "Parameter", _parameter(parameter)
    yield "Most samples", f"{info.max_count:,} a request" if info.max_count else ""
    yield "Numerics", ", ".join(info.numerics)
    for quality in info.quality:
        yield "Quality", _quality(quality)
    yield "Intended use", info.intended_use
    yield "Data licence", info.data_licence
    yield "Recipe", info.recipe


def _shape(info: ModelInfo) -> str:
    return " × ".join(map(str, info.sample_shape)) + f" {info.dtype}" if info.sample_shape else ""


def _parameter(parameter: ParameterInfo) -> str:
    low, high = parameter.range
    unset = "off" if parameter.default is None else f"{parameter.default:g}"
    return f"{parameter.name}, {low:g} to {high:g}, unset {unset}: {parameter.description}"


def _quality(quality: QualityInfo) -> str:
    low, high = quality.interval
    real = "" if quality.real_value is None else f", real data {quality.real_value:g}"
    return f"{quality.metric} {quality.value:g} [{low:g}, {high:g}]{real}; {quality.method}"
