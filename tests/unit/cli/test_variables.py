"""Options set by the environment: variables of container platforms are ignored, and errors name the variable."""

import pytest
from click.testing import CliRunner

from fount.cli.main import main
from service.workers.torchserve.run import run

PREFIX = {"auto_envvar_prefix": "FOUNT_WORKER"}
LINK = "tcp://10.0.0.1:50051"


def fount(*arguments, **variables):
    return CliRunner().invoke(main, arguments, env=variables)


@pytest.mark.parametrize(
    ("command", "variable", "option"),
    [("gateway", "FOUNT_GATEWAY_PORT", "--port"), ("gateway", "FOUNT_GATEWAY_HTTP_PORT", "--http-port"),
     ("serve", "FOUNT_SERVE_PORT", "--port")],
)  # fmt: skip
def test_the_address_of_a_service_is_ignored_with_a_warning(command, variable, option):
    result = fount(command, "--archives" if command == "serve" else "--torchserve", "none", **{variable: LINK})
    assert f"warning: {variable}={LINK} is ignored" in result.stderr
    assert f"use {option} for the option" in result.stderr
    assert f"Invalid value for '{option}'" not in result.stderr


def test_the_address_of_a_service_is_ignored_by_torchserve_too():
    variables = {"FOUNT_WORKER_INFERENCE_PORT": "udp://10.0.0.1:7070"}
    result = CliRunner().invoke(run, ["--archives", "none", "--help"], env=variables, **PREFIX)
    assert "warning: FOUNT_WORKER_INFERENCE_PORT=udp://10.0.0.1:7070 is ignored" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "variable", "value"),
    [
        (("gateway", "--torchserve", "x"), "FOUNT_GATEWAY_PORT", "x"),  # made by a shared factory
        (("models",), "FOUNT_TIMEOUT", "soon"),  # with a variable of its own
        (("gateway",), "FOUNT_GATEWAY_TORCHSERVE", "nowhere"),  # found wrong when the command runs
        (("serve",), "FOUNT_SERVE_THREADS", "0"),
        (("check", "x"), "FOUNT_WORKER_THREADS", "0"),
        (("sample", "x"), "FOUNT_SAMPLE_COUNT", "many"),
    ],
)
def test_an_error_names_the_variable_that_the_value_came_from_once(arguments, variable, value):
    result = fount(*arguments, **{variable: value})
    assert result.exit_code == 2
    assert result.stderr.count(variable) == 1


def test_an_error_of_the_command_line_names_no_variable():
    result = fount("gateway", "--port", "x", FOUNT_GATEWAY_PORT="1")
    assert (result.exit_code, "variable" in result.stderr) == (2, False)


def test_an_error_of_torchserve_names_the_variable():
    result = CliRunner().invoke(run, ["--archives", "a", "--state", "s"], env={"FOUNT_WORKER_WORKERS": "x"}, **PREFIX)
    assert "(the value of the environment variable FOUNT_WORKER_WORKERS)" in result.stderr
