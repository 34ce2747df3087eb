"""`fount plan`: what a plan file would make, as a table, before a row is made; and the plans there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from fount.augmentation.plan import SOURCES, AgreementInfo, PlanInfo
from fount.augmentation.plan_file import load_plan_file
from fount.cli.connection import connected
from fount.cli.options import echo_json, json_option, option, plain, server_option, timeout_option
from fount.errors import OutputError

__all__ = ["plan"]

_SOURCES = tuple(SOURCES.values())


@click.command()
@click.argument("file", required=False, metavar="[PLAN.yaml]", type=click.Path(path_type=Path))
@click.option(
    "--list", "as_list", envvar="FOUNT_PLAN_LIST", show_envvar=True, is_flag=True, help="List your own plans."
)
@option("--id", metavar="ID", help="Show a plan of your own again.")
@option("--ticket-out", metavar="FILE", help="Write the plan's ticket there, for `fount pull` and other programs.")
@server_option
@timeout_option
@json_option
def plan(
    file: Path | None,
    as_list: bool,
    id: str | None,
    ticket_out: str | None,
    server: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Plan an augmented data set: how many rows of each class come from where.

    PLAN.yaml says what is wished for; nothing is made yet. The same file with a seed gives the same plan.

    \b
    Example:
      fount plan balanced.yaml
      fount plan balanced.yaml --ticket-out balanced.ticket
      fount plan --list
    with balanced.yaml:
      dataset: digits
      seed: 1
      target: {balance: largest}
      mix: {transformed: 1, synthesised: 1}
      synthesis: {model: digits-cvae}
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if (file is not None) + as_list + (id is not None) != 1:
        raise click.UsageError("Name a plan file, or give --id ID, or --list")
    if as_list and ticket_out is not None:
        raise click.UsageError("--ticket-out is of one plan; give --id ID with it")
    request = None if file is None else load_plan_file(file)
    with connected(server, timeout_s) as client:
        if as_list:
            _echo_list(client.plans(), as_json)
            return
        info = client.get_plan(id or "") if request is None else client.plan(request)
    if ticket_out is not None:
        _write_ticket(Path(ticket_out), info.ticket)
    if as_json:
        echo_json(_as_json(info))
        return
    for line in (*_table(info), "", *_facts(info, ticket_out)):
        click.echo(plain(line))


def _write_ticket(path: Path, ticket: bytes) -> None:
    try:
        path.write_bytes(ticket)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def _as_json(info: PlanInfo) -> dict[str, Any]:
    return MessageToDict(info.message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _echo_list(plans: Sequence[PlanInfo], as_json: bool) -> None:
    if as_json:
        echo_json([_as_json(info) for info in plans])
        return
    rows = [
        (info.id, f"{info.dataset}/{info.split}", f"{info.rows:,}", f"{info.created:%F %T}", f"{info.expires:%F %T}")
        for info in plans
    ]
    for line in _aligned([("PLAN", "DATA SET", "ROWS", "PLANNED (UTC)", "TICKET ENDS (UTC)"), *rows], texts=2):
        click.echo(plain(line))


# --- The table --------------------------------------------------------------------------------------------------------


def _table(info: PlanInfo) -> Iterator[str]:
    """A line a class, or a class and group: rows by source, and the class's weight for a loss."""
    sources = [source for source in _SOURCES if any(slot.source == source for slot in info.slots)]
    keys = sorted({(slot.label_id, slot.group) for slot in info.slots})
    by_group = bool(info.groups)
    header = ("CLASS", *(["GROUP"] if by_group else []), *(source.upper() for source in sources), "ROWS", "WEIGHT")
    lines, counted = [header], _counted(info)
    for label, group in keys:
        counts = [counted[label, group, source] for source in sources]
        names = (_class(info, label), *([group or "-"] if by_group else []))
        lines.append((*names, *(f"{count:,}" for count in (*counts, sum(counts))), _weight(info, label)))
    totals = [sum(slot.count for slot in info.slots if slot.source == source) for source in sources]
    lines.append(("all", *(["-"] if by_group else []), *(f"{count:,}" for count in (*totals, sum(totals))), ""))
    yield from _aligned(lines, texts=1 + by_group)


def _counted(info: PlanInfo) -> Counter[tuple[int, str, str]]:
    """Rows by class, group and source."""
    counted: Counter[tuple[int, str, str]] = Counter()
    for slot in info.slots:
        counted[slot.label_id, slot.group, slot.source] += slot.count
    return counted


def _class(info: PlanInfo, label: int) -> str:
    return info.classes[label] if label < len(info.classes) else str(label)


def _weight(info: PlanInfo, label: int) -> str:
    return f"{info.class_weights[label]:.3g}" if label < len(info.class_weights) else ""


def _aligned(lines: Sequence[tuple[str, ...]], texts: int) -> Iterator[str]:
    """Lines in columns, the first ones to the left and the others, numbers, to the right."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        cells = zip(line, widths, strict=True)
        yield "  ".join(
            cell.ljust(width) if place < texts else cell.rjust(width) for place, (cell, width) in enumerate(cells)
        ).rstrip()


# --- What else there is to know ---------------------------------------------------------------------------------------


def _facts(info: PlanInfo, ticket_out: str | None) -> Iterator[str]:
    yield f"Plan       {info.id}, {info.rows:,} rows in {info.shards} shard{'s' if info.shards != 1 else ''}"
    yield f"Data set   {info.dataset}/{info.split}, {info.dataset_digest}"
    yield f"Seed       {info.seed}"
    for model in info.models:
        yield f"{model.role.capitalize():<10} {model.model}, numerics {model.numerics}"
    if info.expected_rejected is not None:
        attempts = (
            "" if info.expected_attempts is None else f", {info.expected_attempts:.2g} samples drawn for each row"
        )
        yield f"Rejected   about {info.expected_rejected:,.0f} rows{attempts}"
    if info.copy_threshold is not None:
        yield f"Copies     a sample whose ratio is below {info.copy_threshold:.4g} is refused"
    if info.agreement is not None:
        yield from _agreement(info.agreement)
    yield f"Time       about {_duration(info.estimated_time_s)} on idle workers"
    yield f"Ticket     ends {info.expires:%F %T} UTC" + (f", written to {ticket_out}" if ticket_out else "")
    for warning in info.warnings:
        yield f"Warning    {warning.message} ({warning.reason})"


def _agreement(agreement: AgreementInfo) -> Iterator[str]:
    yield (
        f"Agreement  {agreement.after:.1%} of the rows read rightly are still so when transformed; "
        f"{agreement.before:.1%} of {agreement.rows} are before"
    )
    if agreement.transforms:
        each = ", ".join(f"{kind} {after:.1%}" for kind, after in agreement.transforms.items())
        yield f"           by transform: {each}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0.1):.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
