"""The options of models on demand: when they apply, their limits, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from service.cli import loading
from service.cli.options import embedded_pool, worker_options
from service.workers.torchserve.on_demand import OnDemandPool


@click.command()
@worker_options
@click.pass_context
def probe(context: click.Context, **_: object) -> None:
    pool = embedded_pool(context)
    limits = pool._limits if isinstance(pool, OnDemandPool) else None
    click.echo(f"{limits and (limits.models, limits.memory_bytes, limits.starting)}")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command over so many archives of 1 MiB, on a machine with 4 GiB and 2 cores."""
    monkeypatch.setattr(loading, "available_bytes", lambda: 4 << 30)
    monkeypatch.setattr(loading, "usable_cores", lambda: 2)

    def run(count: int, *options: str, environment: dict[str, str] | None = None) -> Result:
        for number in range(count):
            (tmp_path / f"m{number}-1.0.mar").write_bytes(bytes(1 << 20))
        arguments = ["--archives", str(tmp_path), "--state-dir", str(tmp_path / "state"), *options]
        return CliRunner().invoke(probe, arguments, auto_envvar_prefix="FOUNT_SERVE", env=environment)

    return run


def test_few_models_are_all_loaded_at_the_start(run) -> None:
    result = run(8)
    assert result.stdout == "None\n"
    assert "on demand" not in result.stderr


def test_many_models_are_loaded_on_demand_within_half_of_the_memory(run) -> None:
    result = run(9)
    assert result.stdout == "(4, None, 1)\n"
    assert result.stderr == "loading 9 models on demand (more than 8; see --load), at most 4 models at once\n"


def test_eight_are_loaded_where_the_memory_is_unknown(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "available_bytes", lambda: None)
    assert run(9).stdout == "(8, None, 1)\n"


def test_workers_of_a_model_count_as_its_memory(run) -> None:
    assert run(9, "--workers", "2").stdout == "(2, None, 1)\n"


def test_the_choice_can_be_made(run) -> None:
    assert run(9, "--load", "all").stdout == "None\n"
    assert run(2, "--load", "on-demand").stdout == "(4, None, 1)\n"
    assert run(2, environment={"FOUNT_SERVE_LOAD": "on-demand"}).stdout == "(4, None, 1)\n"


def test_a_limit_means_on_demand(run) -> None:
    assert run(2, "--max-loaded", "1").stdout == "(1, None, 1)\n"
    result = run(2, "--memory-budget", "1.5GiB", "--max-loaded", "3")
    assert result.stdout == f"(3, {3 << 29}, 1)\n"
    assert "at most 3 models and 1.50 GiB of workers at once" in result.stderr


@pytest.mark.parametrize(
    ("text", "size"), [("2147483648", 2 << 30), ("2GiB", 2 << 30), ("2g", 2 * 10**9), ("500 MB", 5 * 10**8)]
)
def test_a_size_has_a_unit_or_none(run, text: str, size: int) -> None:
    assert run(2, "--memory-budget", text).stdout == f"(None, {size}, 1)\n"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--max-loaded", "0"), "0 is not in the range x>=1"),
        (("--memory-budget", "0"), "'0' is not a size above 0, like 8GiB"),
        (("--memory-budget", "much"), "'much' is not a size above 0"),
        (("--memory-budget", "200MiB"), "one model needs more: m1-1.0 about 0.25 GiB, and this is 0.20 GiB"),
        (("--load", "all", "--max-loaded", "3"), "--max-loaded and --memory-budget need --load on-demand"),
        (("--load", "some"), "'some' is not one of 'all', 'on-demand'"),
    ],
)
def test_a_wrong_option_is_refused(run, options: tuple[str, ...], problem: str) -> None:
    result = run(2, *options)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_tuned_file_with_an_error_is_refused(run, tmp_path: Path) -> None:
    (tmp_path / "workers.yaml").write_text("models: {a: {wokers: 3}}")
    result = run(2, "--load", "on-demand", "--tuned", str(tmp_path / "workers.yaml"))
    assert result.exit_code == 1
    assert "did you mean 'workers'" in result.stderr
