"""How many workers a model has when nobody has said."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from service.cli.default_workers import DefaultWorkers, default_workers
from service.cli.options import embedded_pool, worker_options
from service.workers.torchserve.launch import TorchServeConfig

GIB = 2**30


@pytest.mark.parametrize(
    ("cores", "threads", "memory", "models", "expected"),
    [
        pytest.param(2, 1, 16 * GIB, 8, DefaultWorkers(workers=2, reason="2 cores"), id="cores"),
        pytest.param(1, 1, 16 * GIB, 8, DefaultWorkers(workers=1, reason="1 core"), id="a core"),
        pytest.param(8, 2, 64 * GIB, 8, DefaultWorkers(workers=4, reason="8 cores"), id="threads"),
        pytest.param(2, 4, 64 * GIB, 8, DefaultWorkers(workers=1, reason="2 cores"), id="more threads than cores"),
        pytest.param(64, 1, 512 * GIB, 8, DefaultWorkers(workers=8, reason="64 cores"), id="many cores"),
        pytest.param(
            8, 1, 12 * GIB, 8, DefaultWorkers(workers=3, reason="12.0 GiB of memory for 8 models"), id="memory"
        ),
        pytest.param(
            2, 1, GIB // 4, 1, DefaultWorkers(workers=1, reason="0.2 GiB of memory for 1 model"), id="little memory"
        ),
        pytest.param(2, 1, None, 8, DefaultWorkers(workers=2, reason="2 cores"), id="unknown memory"),
    ],
)
def test_workers_are_limited_by_cores_and_memory(
    cores: int, threads: int, memory: int | None, models: int, expected: DefaultWorkers
) -> None:
    assert default_workers(models=models, threads=threads, cores=cores, available_bytes=memory) == expected


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.options.usable_cores", lambda: 4)
    monkeypatch.setattr("service.cli.options.available_bytes", lambda: 8 * GIB)


def configured(folder: Path, *args: str, default: int | None = None) -> tuple[TorchServeConfig, str]:
    """The settings and the output of a command with these options, for a folder with two archives."""
    for name in ("a", "b"):
        (folder / f"{name}.mar").touch()
    found: list[TorchServeConfig] = []

    @click.command()
    @worker_options
    @click.pass_context
    def command(context: click.Context, /, **_: object) -> None:
        found.extend(process._config for process in embedded_pool(context, default).processes)

    options = ("--archives", str(folder), "--state-dir", str(folder / "state"))
    result = CliRunner().invoke(command, (*options, *args))
    assert result.exit_code == 0, result.output
    return found[0], result.output


def test_the_number_of_workers_fits_the_machine_and_is_reported(tmp_path: Path) -> None:
    config, output = configured(tmp_path)
    assert (config.workers, config.threads) == (4, 1)
    assert output == (
        "4 workers x 1 thread a model: 4 cores; choose with --workers and --threads, or measure with `fount tune`\n"
    )


def test_threads_are_taken_into_account(tmp_path: Path) -> None:
    config, output = configured(tmp_path, "--threads", "2")
    assert (config.workers, config.threads) == (2, 2)
    assert output.startswith("2 workers x 2 threads a model: 4 cores;")


def test_a_number_of_workers_that_was_given_is_kept(tmp_path: Path) -> None:
    config, output = configured(tmp_path, "--workers", "3", default=1)
    assert (config.workers, output) == (3, "")


def test_a_command_may_have_a_default_of_its_own(tmp_path: Path) -> None:
    config, output = configured(tmp_path, default=1)
    assert (config.workers, output) == (1, "")


def test_tuned_settings_stay_in_force(tmp_path: Path) -> None:
    tuned = tmp_path / "state/workers.yaml"
    tuned.parent.mkdir()
    tuned.write_text("models: {a: {workers: 1}}")
    config, output = configured(tmp_path)
    assert (config.workers, config.tuned) == (4, tuned)
    assert output.endswith(f"; models in {tuned} run as tuned\n")
