"""The import rules of pyproject.toml: each one is broken once, and `lint-imports` must report it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("fount", "service", "handlers")

TORCH, WORKERS, CLIENT, ADAPTERS, DOMAIN, SERVICE_LAYERS, CLIENT_LAYERS, WORKER_LAYERS = (
    "The gateway never loads torch", "The worker side never reaches", "The client is light", "Adapters are imported",
    "Domain code", "The gateway's packages", "The client's packages", "The worker side's packages",
)  # fmt: skip
VIOLATIONS = [
    pytest.param("service/planted.py", "import torch", TORCH, id="torch in the gateway"),
    pytest.param("service/planted.py", "def f():\n    from handlers import family", TORCH, id="in a function"),
    pytest.param("handlers/planted.py", "import service.domain", WORKERS, id="worker to gateway"),
    pytest.param("fount/cli/planted.py", "import aiohttp", CLIENT, id="server library in the client"),
    pytest.param("fount/adapters/ray.py", "import torch", CLIENT, id="an adapter of another library"),
    pytest.param("fount/cli/planted.py", "import fount.adapters.ray", ADAPTERS, id="adapter in a command"),
    pytest.param("service/scheduler/planted.py", "from fount.v1 import model_pb2", DOMAIN, id="message in the domain"),
    pytest.param("service/workers/planted.py", "import service.rpc.chunks", SERVICE_LAYERS, id="gateway layers"),
    pytest.param("fount/sampling/planted.py", "import fount.client.sync", CLIENT_LAYERS, id="client layers"),
    pytest.param("handlers/cards/planted.py", "import handlers.worker.worker", WORKER_LAYERS, id="worker layers"),
    pytest.param("service/evaluation/panels/planted.py", "import service.evaluation.jobs", "Evaluation", id="eval"),
    pytest.param("handlers/recipes/data/planted.py", "import handlers.recipes.run", "Training recipes", id="recipes"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the rules."""
    copy = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def test_the_sources_keep_every_rule(tree: Path):
    assert lint(tree).returncode == 0


@pytest.mark.parametrize(("file", "statement", "contract"), VIOLATIONS)
def test_a_planted_violation_is_reported(tree: Path, file: str, statement: str, contract: str):
    planted = tree / file
    before = planted.read_text() if planted.exists() else None
    planted.write_text((before or "") + "\n" + statement + "\n")
    try:
        result = lint(tree)
    finally:
        planted.unlink() if before is None else planted.write_text(before)
    assert result.returncode == 1
    assert contract in result.stdout.partition("Broken contracts")[2]


def test_the_adapters_of_a_client_load_no_library():
    code = "import sys, fount.adapters; sys.exit(bool({'torch', 'datasets', 'ray'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
