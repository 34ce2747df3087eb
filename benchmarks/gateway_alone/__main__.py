"""`python -m benchmarks.gateway_alone`: measure, write `gateway_alone.json` and `gateway_alone.md`, print the table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks.child import ROOT, Child
from benchmarks.machine import machine_facts
from benchmarks.output import log, rows_to_markdown, write_results
from benchmarks.processes import cpu_s
from benchmarks.rows import Bound, Row

__all__ = ["main"]

_OUT = ROOT / "benchmarks" / "results" / "gateway_alone.json"
_STREAM = {"loops": 1, "chunks": 64}
_AT_MOST = Bound(must=1.8, at_most=True)
_OF_CLIENT = Bound(must=1.5, at_most=True)

Values = dict[str, float]


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Of one load.")
@click.option("--only", type=click.Choice(["server", "client", "stream"]), multiple=True)
@click.option("--out", type=click.Path(path_type=Path), default=_OUT, help="JSON file, with the table next to it.")
def main(rounds: int, seconds: float, only: tuple[str, ...], out: Path) -> None:
    """Compare a gateway over instant workers, and the clients, with bare gRPC servers and stubs."""
    with (
        Child("benchmarks.gateway_alone.servers", "gateway") as gateway,
        Child("benchmarks.gateway_alone.client") as client,
    ):
        ours = f"127.0.0.1:{gateway.receive()['port']}"
        with Child("benchmarks.gateway_alone.servers", "bare", ours) as bare:
            theirs = f"127.0.0.1:{bare.receive()['port']}"
            client.receive()
            found: dict[str, list[Values]] = {}
            for number in range(rounds):
                log(f"round {number + 1} of {rounds}")
                for name, server, load in _loads(gateway, ours, bare, theirs):
                    if not only or name.split()[0] in only:
                        found.setdefault(name, []).append(_measure(client, server, load | {"seconds": seconds}))
    rows = list(_rows(found))
    facts = machine_facts()
    notes = [
        f"{rounds} interleaved rounds; ratio: median of the ratios within a round, in brackets smallest and largest.",
        "The gateway's workers take no time and return constant rows. The bare server parses the same requests and "
        "returns the same bytes. CPU is user and system time of the process.",
    ]
    document = {"machine": facts, "rows": [asdict(row) for row in rows], "rounds": found}
    write_results(out, document, rows_to_markdown(rows, facts, notes))


def _loads(gateway: Child, ours: str, bare: Child, theirs: str) -> Iterator[tuple[str, Child, dict[str, Any]]]:
    """Yield what a round measures: name, server, and the arguments of the client."""
    to_ours, to_theirs = {"address": ours}, {"address": theirs}
    for loops in (1, 32):
        yield f"server {loops} gateway", gateway, {"kind": "stub", "loops": loops, **to_ours}
        yield f"server {loops} bare", bare, {"kind": "stub", "loops": loops, **to_theirs}
    yield "stream gateway", gateway, {"kind": "stub stream", **_STREAM, **to_ours}
    yield "stream bare", bare, {"kind": "stub stream", **_STREAM, **to_theirs}
    yield "client sync stub", bare, {"kind": "sync stub", **to_theirs}
    yield "client sync client", bare, {"kind": "sync client", **to_theirs}
    for loops in (1, 32):
        yield f"client aio {loops} stub", bare, {"kind": "stub", "loops": loops, **to_theirs}
        yield f"client aio {loops} client", bare, {"kind": "client", "loops": loops, **to_theirs}


def _measure(client: Child, server: Child, load: Mapping[str, Any]) -> Values:
    process = psutil.Process(server.pid)
    before = cpu_s([process])
    seen = client.call(load)
    return {
        "server_ms": 1e3 * (cpu_s([process]) - before) / seen["requests"],
        "client_ms": 1e3 * seen["cpu_s"] / seen["requests"],
        "requests_per_s": seen["requests"] / seen["seconds"],
        "mib_per_s": seen["bytes"] / seen["seconds"] / 2**20,
        "p50_ms": 1e3 * seen["p50_s"],
    }


def _rows(found: Mapping[str, list[Values]]) -> Iterator[Row]:
    for loops in (1, 32):
        names = f"server {loops} gateway", f"server {loops} bare"
        yield from _row(found, f"gateway, 1 sample × {loops}: CPU ms a request", names, "server_ms", _AT_MOST)
        yield from _row(found, f"gateway, 1 sample × {loops}: requests/s", names, "requests_per_s", Bound())
        yield from _row(found, f"gateway, 1 sample × {loops}: ms, median", names, "p50_ms", Bound())
    stream = "stream gateway", "stream bare"
    yield from _row(found, "stream of 64 chunks of 1 MiB: MiB/s", stream, "mib_per_s", Bound(must=0.8))
    yield from _row(found, "stream of 64 chunks of 1 MiB: server's CPU ms", stream, "server_ms", Bound())
    for name in ("sync", "aio 1", "aio 32"):
        names = f"client {name} client", f"client {name} stub"
        yield from _row(found, f"client, {name}, 1 sample: CPU ms a request", names, "client_ms", _OF_CLIENT)


def _row(
    found: Mapping[str, list[Values]], workload: str, names: tuple[str, str], value: str, bound: Bound
) -> Iterator[Row]:
    ours, theirs = ([each[value] for each in found.get(name, ())] for name in names)
    if not ours:
        return
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    yield Row(
        workload=workload, precision="–", value=f"{statistics.median(ours):.3g}",
        reference=f"bare {statistics.median(theirs):.3g}", ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)), bound=bound,
    )  # fmt: skip


if __name__ == "__main__":
    main()
