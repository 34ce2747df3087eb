"""`fount plan`: plan an augmented data set and show it as a table, before any row is made; list and show plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from fount.augmentation.plan import SOURCES, PlanInfo
from fount.augmentation.plan_file import load_plan_file, named_classes
from fount.cli.connection import connected
from fount.cli.options import PATH, option, server_options
from fount.cli.output.paths import check_output_file
from fount.cli.output.text import echo_result, note_numbers_read_as_names, plain, table
from fount.errors import output_errors

__all__ = ["plan"]


@click.command()
@click.argument("file", required=False, metavar="[PLAN.yaml]", type=PATH)
@click.option("--list", "as_list", envvar="FOUNT_PLAN_LIST", show_envvar=True, is_flag=True, help="List your plans.")
@option("--id", metavar="ID", help="Show one of your own plans again.")
@option(
    "--ticket-out",
    type=PATH,
    metavar="FILE",
    help="Write the plan's ticket to FILE, for `fount pull` and other programs.",
)
@server_options
def plan(
    file: Path | None,
    as_list: bool,
    id: str | None,
    ticket_out: Path | None,
    server: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Plan an augmented data set: how many rows of each class come from where.

    PLAN.yaml specifies the data set; no row is made yet. The same file with a seed gives the same plan. A class is
    meant by its name; a number that is no class's name is an index, as "#2" always is.

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
        raise click.UsageError("--ticket-out needs one plan; give --id ID with it")
    spec = None if file is None else load_plan_file(file, pipes=True)
    if ticket_out is not None:
        check_output_file(ticket_out)
    with connected(server, timeout_s) as client:
        if as_list:
            plans = client.plans()
            echo_result([_as_json(info) for info in plans], _list(plans), as_json=as_json)
            return
        info = client.get_plan(id or "") if spec is None else client.plan(spec)
    if spec is not None:
        note_numbers_read_as_names(named_classes(spec), info.classes)
    if ticket_out is not None:
        with output_errors(ticket_out):
            ticket_out.write_bytes(info.ticket)
    echo_result(_as_json(info), (*_slot_table(info), "", *map(plain, _facts(info, ticket_out))), as_json=as_json)


def _as_json(info: PlanInfo) -> dict[str, Any]:
    return MessageToDict(info.message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _list(plans: Sequence[PlanInfo]) -> Iterator[str]:
    rows = [("PLAN", "DATA SET", "ROWS", "PLANNED (UTC)", "TICKET ENDS (UTC)")]
    for info in plans:
        times = f"{info.created:%F %T}", f"{info.expires:%F %T}"
        rows.append((info.id, f"{info.dataset}/{info.split}", f"{info.rows:,}", *times))
    return table(rows, right_from=2)


def _slot_table(info: PlanInfo) -> Iterator[str]:
    """Make a line per class, or per class and group: rows by source, and the class's weight for a loss."""
    counts: Counter[tuple[int, str, str]] = Counter()
    for slot in info.slots:
        counts[slot.label_id, slot.group, slot.source] += slot.count
    sources = [source for source in SOURCES.values() if any(slot.source == source for slot in info.slots)]
    names = 2 if info.groups else 1  # columns before the numbers
    rows = [(*("CLASS", "GROUP")[:names], *map(str.upper, sources), "ROWS", "WEIGHT")]
    keys = sorted({(slot.label_id, slot.group, slot.label) for slot in info.slots})
    for label, group, name in keys:
        numbers = [counts[label, group, source] for source in sources]
        weight = f"{info.class_weights[label]:.3g}" if label < len(info.class_weights) else ""
        rows.append((*(name, group or "-")[:names], *(f"{number:,}" for number in (*numbers, sum(numbers))), weight))
    totals = [sum(slot.count for slot in info.slots if slot.source == source) for source in sources]
    rows.append((*("all", "-")[:names], *(f"{total:,}" for total in (*totals, sum(totals))), ""))
    yield from table(rows, right_from=names)


def _facts(info: PlanInfo, ticket_out: Path | None) -> Iterator[str]:
    yield f"Plan       {info.id}, {info.rows:,} rows in {info.shards} shard{'s' if info.shards != 1 else ''}"
    yield f"Data set   {info.dataset}/{info.split}, {info.dataset_digest}"
    yield f"Seed       {info.seed}"
    if info.class_weights:
        yield "Weights    are for a loss on the data set as it is, instead of the rows of this plan"
    for model in info.models:
        yield f"{model.role.capitalize():<10} {model.model}, numerics {model.numerics}"
    if info.expected_rejected is not None:
        attempts = "" if info.expected_attempts is None else f", {info.expected_attempts:.2g} samples drawn per row"
        yield f"Rejected   about {info.expected_rejected:,.0f} rows{attempts}"
    if info.copy_threshold is not None:
        yield f"Copies     a sample whose ratio is below {info.copy_threshold:.4g} is rejected"
    if (agreement := info.agreement) is not None:
        yield (
            f"Agreement  {agreement.after:.1%} of correctly classified rows keep their label when transformed; "
            f"{agreement.before:.1%} of {agreement.rows} are classified correctly before"
        )
        if agreement.transforms:
            shares = ", ".join(f"{kind} {after:.1%}" for kind, after in agreement.transforms.items())
            yield f"           by transform: {shares}"
    yield f"Time       about {_duration(info.estimated_time_s)} on idle workers"
    yield f"Ticket     ends {info.expires:%F %T} UTC" + (f", written to {ticket_out}" if ticket_out else "")
    for warning in info.warnings:
        yield f"Warning    {warning.message} ({warning.reason})"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0.1):.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
