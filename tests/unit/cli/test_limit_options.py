"""The limits of callers, open calls and idle streams, as options of the gateway."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from service.cli.options import gateway_config, gateway_options


def configure(*args: str) -> tuple[str, str]:
    """Return some settings of a command with these options, and what it writes to standard error."""

    @click.command()
    @gateway_options
    @click.pass_context
    def command(context: click.Context, /, **_: object) -> None:
        config = gateway_config(context)
        click.echo(
            f"{config.caller_queue_s:g} {config.max_queue_s:g} {config.max_open_calls} {config.idle_timeout_s:g}"
        )

    result = CliRunner().invoke(command, args, auto_envvar_prefix="FOUNT")
    return result.stdout.strip(), result.stderr


@pytest.mark.parametrize(
    ("args", "settings"),
    [
        pytest.param((), "30 60 1024 300", id="unset"),
        pytest.param(("--max-open-calls", "7", "--idle-timeout", "9"), "30 60 7 9", id="set"),
    ],
)
def test_limits_are_read_and_a_caller_gets_half_of_a_models_queue(args: tuple[str, ...], settings: str) -> None:
    assert configure(*args) == (settings, "")


def test_a_caller_that_could_fill_the_queue_of_a_model_is_a_warning() -> None:
    _, warning = configure("--max-queue-s", "20", "--caller-queue-s", "40")
    assert warning == (
        "warning: --caller-queue-s 40 is above --max-queue-s 20, so one caller can fill the queue of a model; "
        "lower it\n"
    )
