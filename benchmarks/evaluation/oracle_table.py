"""`python -m benchmarks.evaluation.oracle_table`: statistics beside those of other libraries, to results/oracles.md."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.child import ROOT
from benchmarks.evaluation.table import oracles_to_markdown

__all__ = ["main"]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "results" / "oracles.md",
              show_default=True)  # fmt: skip
def main(out: Path) -> None:
    """Compute every number twice, and write both."""
    from benchmarks.evaluation.oracles import moment_rows
    from benchmarks.evaluation.oracles_neighbours import neighbour_rows

    text = oracles_to_markdown([*moment_rows(), *neighbour_rows()])
    out.write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
