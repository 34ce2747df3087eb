"""`python -m benchmarks.evaluation.oracle_table`: compare statistics with other libraries, in results/oracles.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.child import ROOT
from benchmarks.evaluation.oracles import OracleRow, moment_rows
from benchmarks.evaluation.oracles_neighbours import neighbour_rows

__all__ = ["main"]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "results" / "oracles.md",
              show_default=True)  # fmt: skip
def main(out: Path) -> None:
    """Compute every number with both implementations, and write the table."""
    text = oracles_to_markdown([*moment_rows(), *neighbour_rows()])
    out.write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


def oracles_to_markdown(rows: Sequence[OracleRow]) -> str:
    """Format one row for each number."""
    lines = ["| number | library | theirs | Fount | relative difference |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.metric} | {row.library} | {row.theirs:.10g} | {row.ours:.10g} | {_difference(row.difference)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _difference(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


if __name__ == "__main__":
    main()
