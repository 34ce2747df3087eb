"""`fount models` and `fount model`: list the models a server offers, or show one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from fount.cli.connection import connected
from fount.cli.options import option, server_options
from fount.cli.output.text import align, echo_result, plain
from fount.client.catalog import ModelInfo

__all__ = ["model", "models"]

_DEFAULT_TERMINAL = (160, 24)  # columns and lines where stdout is not a terminal
_MIN_REASON = 40  # characters, even if the line becomes wider than the terminal


@click.command()
@server_options
def models(server: str, timeout_s: float, as_json: bool) -> None:
    """List the models a server offers.

    \b
    Example:
      fount models
      fount models --server gpu-box:50051 --json
    """  # noqa: D301  # \b is click's: keep the lines as they are
    with connected(server, timeout_s) as client:
        found = client.models()
    echo_result([_as_json(info) for info in found], _list(found), as_json=as_json)
    if not found:
        click.echo("The server offers no model; one that has just started may not know its models yet.", err=True)
    if not as_json and any(_problem(info) for info in found):
        click.echo("The full reason why a model is not ready: fount model NAME", err=True)


@click.command()
@click.argument("name")
@option("--digest", metavar="SHA256", help="Only the model with this digest.")
@server_options
def model(name: str, digest: str | None, server: str, timeout_s: float, as_json: bool) -> None:
    """Show one model: its inputs, outputs and measured quality.

    NAME is a model's name, or name:version.

    \b
    Example:
      fount model digits-cvae
    """  # noqa: D301  # \b is click's: keep the lines as they are
    with connected(server, timeout_s) as client:
        info = client.model(name, digest=digest)
    lines = (f"{title:<13} {plain(text)}" for title, text in _facts(info) if text)
    echo_result(_as_json(info), lines, as_json=as_json)


def _as_json(info: ModelInfo) -> dict[str, object]:
    return {**asdict(info), "model": str(info.model)}


def _list(found: Sequence[ModelInfo]) -> Iterator[str]:
    """Make a line per model; for one that is not ready, the last column is the reason, cut to the terminal's width."""
    rows = [("MODEL", "STATE", "CAN", "CLASSES", "SHAPE")]
    for info in found:
        name = f"{info.name}:{info.version}{' (default)' if info.is_default else ''}"
        classes = str(len(info.labels)) if info.labels else "-"
        rows.append((name, info.state, ", ".join(info.operations), classes, _shape(info) or "-"))
    cells = ["  ".join(row) for row in align(rows)]
    width = max(_MIN_REASON, shutil.get_terminal_size(_DEFAULT_TERMINAL).columns - len(cells[0]) - 2)
    yield f"{cells[0]}  DESCRIPTION"
    for line, info in zip(cells[1:], found, strict=True):
        reason = plain(_problem(info))
        reason = reason if len(reason) <= width else f"{reason[: width - 1]}…"
        yield f"{line}  {reason or plain(info.description)}".rstrip()


def _problem(info: ModelInfo) -> str:
    """Return why a model does not answer; empty for a cold one, which does, after a while."""
    return "" if info.state == "cold" else info.state_reason


def _facts(info: ModelInfo) -> Iterator[tuple[str, str]]:
    yield "Model", f"{info.name}:{info.version}"
    yield "Digest", info.digest
    yield "State", f"{info.state}{f': {info.state_reason}' if info.state_reason else ''}"
    yield "Family", info.family
    yield "Description", info.description
    yield "Can", ", ".join(info.operations)
    yield "Sample", _shape(info) + (" vector" if info.modality == "vector" else "")
    yield "Translates", " × ".join(map(str, info.input_shape))
    yield "Encodings", ", ".join(info.encodings)
    yield "Classes", ", ".join(info.labels)
    for parameter in info.parameters:
        low, high = parameter.range
        unset = "off" if parameter.default is None else f"{parameter.default:g}"
        yield "Parameter", f"{parameter.name}, {low:g} to {high:g}, unset {unset}: {parameter.description}"
    unit = f", a multiple of {info.prefix_unit} bytes" if info.prefix_unit > 1 else ""
    yield "Given", ", ".join(each + unit * (each == "prefix") for each in info.conditions)
    yield "Draw steps", str(info.draw_steps) if info.draw_steps > 1 else ""
    yield "Latent", f"{info.latent_dim} numbers, spread {info.latent_spread:g}" if info.latent_dim else ""
    for direction in info.directions:
        yield "Direction", f"{direction.name}: {direction.description}"
    for column in info.score_columns:
        yield "Score", f"{column.name}, {column.unit}, {column.kind}: {column.description}"
    yield "Most samples", f"{info.max_count:,} per request" if info.max_count else ""
    yield "Numerics", ", ".join(info.numerics)
    for quality in info.quality:
        low, high = quality.interval
        real = "" if quality.real_value is None else f", real data {quality.real_value:g}"
        yield "Quality", f"{quality.metric} {quality.value:g} [{low:g}, {high:g}]{real}; {quality.method}"
    yield "Intended use", info.intended_use
    yield "Data licence", info.data_licence
    yield "Recipe", info.recipe


def _shape(info: ModelInfo) -> str:
    if info.modality == "text":
        return f"text to {info.max_text_bytes:,} bytes"
    return " × ".join(map(str, info.sample_shape)) + f" {info.dtype}" if info.sample_shape else ""
