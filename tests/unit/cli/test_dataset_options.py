"""What `--help` says about data sets."""

from __future__ import annotations

from dataclasses import fields

from click.testing import CliRunner

from fount.cli.main import main
from service.datasets.configuration import _Entry


def test_the_help_of_data_sets_names_every_key() -> None:
    text = " ".join(CliRunner().invoke(main, ["serve", "--help"]).stdout.split())
    keys = text.partition("each with path and, if wanted, ")[2].partition(";")[0].replace(" and ", ", ").split(", ")
    assert {"path", *keys} == {each.name for each in fields(_Entry)}
