"""--ticket-keys and --plans: where keys and plans are kept."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from service.cli.options import gateway_config, gateway_options
from service.config import GatewayConfig


def configured(*args: str, state: Path | None = None) -> GatewayConfig:
    """The settings of a command with these options, and a state folder if one is given."""
    found: list[GatewayConfig] = []

    @click.command()
    @gateway_options
    @click.pass_context
    def command(context: click.Context, /, **_: object) -> None:
        if state is not None:
            context.params["state_dir"] = state
        found.append(gateway_config(context))

    result = CliRunner().invoke(command, args, auto_envvar_prefix="FOUNT")
    assert result.exit_code == 0, result.output
    return found[0]


def test_a_gateway_alone_keeps_nothing() -> None:
    config = configured()
    assert (config.ticket_keys, config.plans) == (None, None)


def test_a_state_folder_holds_both(tmp_path: Path) -> None:
    config = configured(state=tmp_path)
    assert (config.ticket_keys, config.plans) == (tmp_path / "ticket-keys", tmp_path / "plans")


def test_options_go_before_the_state_folder(tmp_path: Path) -> None:
    config = configured("--ticket-keys", "/k", "--plans", "/p", state=tmp_path)
    assert (config.ticket_keys, config.plans) == (Path("/k"), Path("/p"))


def test_they_have_environment_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNT_TICKET_KEYS", "/k")
    monkeypatch.setenv("FOUNT_PLANS", "/p")
    config = configured()
    assert (config.ticket_keys, config.plans) == (Path("/k"), Path("/p"))
