"""The command group: every command is listed, none is imported before it is used."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import click
import pytest
from click.testing import CliRunner

import fount.cli.main as main_module
from fount.cli.main import main

COMMANDS = [
    "augment", "check", "classify", "colourise", "convert", "datasets", "decode", "demo", "encode", "evaluate",
    "evaluation", "evaluations", "gateway", "interpolate", "latent-map", "model", "models", "new", "pack", "plan",
    "pull", "quality", "reconstruct", "runner", "sample", "score", "serve", "train", "translate", "tune", "upscale",
    "vary",
]  # fmt: skip


def fount(*arguments):
    return CliRunner().invoke(main, arguments)


def offer(monkeypatch, *found):
    monkeypatch.setattr(main_module, "entry_points", lambda group, name: found)


def test_every_command_is_listed_with_its_summary():
    listed = fount("--help").stdout.split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in listed if line[2:3].strip()] == COMMANDS


def test_help_loads_no_grpc():
    code = "import sys; from click.testing import CliRunner; from fount.cli.main import main;"
    code += "CliRunner().invoke(main, ['--help']); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_is_shown():
    assert fount("--version").stdout == "fount, version 0.1.0\n"


def test_an_unknown_command_is_a_usage_error():
    result = fount("sampel")
    assert result.exit_code == 2
    assert "No such command 'sampel'" in result.stderr


OF_THE_CLIENT = [
    "models", "model", "sample", "plan", "pull", "augment", "evaluate", "evaluation", "evaluations", "encode", "decode",
    "reconstruct", "interpolate", "vary", "score", "classify", "latent-map",
    "translate", "upscale", "colourise",
]  # fmt: skip


@pytest.mark.parametrize("command", OF_THE_CLIENT)
def test_help_has_an_example_and_each_options_variable(command):
    text = fount(command, "--help").stdout
    assert f"fount {command}" in text.split("Example:")[1]
    assert text.count("env") >= sum(line.startswith("  --") for line in text.splitlines())


def test_a_command_of_an_extra_is_found_by_its_entry_point(monkeypatch):
    @click.command()
    def serve():
        click.echo("serving")

    monkeypatch.setitem(sys.modules, "somewhere", type(sys)("somewhere"))
    sys.modules["somewhere"].serve = serve
    offer(monkeypatch, EntryPoint("serve", "somewhere:serve", "fount.commands"))
    assert fount("serve").stdout == "serving\n"


def test_a_missing_dependency_names_the_extra(monkeypatch):
    offer(monkeypatch, EntryPoint("serve", "not_installed.part:serve", "fount.commands"))
    result = fount("serve")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: `fount serve` needs the extra `serve`: pip install 'fount[serve]' (missing: not_installed)\n",
    )


def test_a_dependency_missing_at_run_time_names_the_extra(monkeypatch):
    @click.command()
    def train():
        import not_installed  # noqa: F401

    monkeypatch.setitem(sys.modules, "somewhere", type(sys)("somewhere"))
    sys.modules["somewhere"].train = train
    offer(monkeypatch, EntryPoint("train", "somewhere:train", "fount.commands"))
    assert "needs the extra `torch`" in fount("train").stderr


def test_a_missing_entry_point_names_the_extra(monkeypatch):
    offer(monkeypatch)
    assert "pip install 'fount[torch]'" in fount("pack").stderr


def test_a_missing_module_of_our_own_is_no_missing_extra(monkeypatch):
    offer(monkeypatch, EntryPoint("serve", "fount.nowhere:serve", "fount.commands"))
    assert isinstance(fount("serve").exception, ModuleNotFoundError)


def test_ctrl_c_ends_any_command_with_130(monkeypatch):
    @click.command()
    def serve():
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "somewhere", type(sys)("somewhere"))
    sys.modules["somewhere"].serve = serve
    offer(monkeypatch, EntryPoint("serve", "somewhere:serve", "fount.commands"))
    result = fount("serve")
    assert (result.exit_code, result.stderr) == (130, "Stopped.\n")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:7070", "'127.0.0.1:7070' is not HOST:INFERENCE/MANAGEMENT, as in 127.0.0.1:7070/7071"),
        ("127.0.0.1:99999/7071", "The server address '127.0.0.1:99999' cannot be used: the port must be 1 to 65535"),
        ("127.0.0.1:7070/0", "The server address '127.0.0.1:0' cannot be used: the port must be 1 to 65535"),
        ("my box:7070/7071", "'my box' is not the name or address of a host"),
        ("::1:7070/7071", "an IPv6 address is written in brackets, as in [::1]:50051"),
    ],
)
def test_an_address_of_torchserve_that_cannot_be_used_is_refused(address, problem):
    result = CliRunner().invoke(main, ["gateway", "--torchserve", address])
    assert (result.exit_code, problem in result.stderr) == (2, True)
