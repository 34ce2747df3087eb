"""`fount serve --model-store`: every model that can be packed is served, the others are named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from fount import Client
from fount.errors import ServerUnavailable
from tests.e2e.processes import FOUNT, REPOSITORY, Served, run_fount, served_by

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A store of two good models, of which one is one's own, and two that cannot be packed."""
    home = tmp_path_factory.mktemp("home")
    store = home / "store"
    shutil.copytree(REPOSITORY / "model_store/digits-vae", store / "digits-vae")
    shutil.copytree(store / "digits-vae", store / "unchecked")
    text = (store / "unchecked/model.yaml").read_text()
    (store / "unchecked/model.yaml").write_text(text.replace("name: digits-vae\n", "name: unchecked\n", 1))
    (store / "unchecked/golden.safetensors").unlink()
    for command in (("new", "shapes", "--labels", "a,b", "--size", "8"), ("check", "shapes")):
        done = run_fount(*command, "--model-store", str(store), home=home)
        assert done.returncode == 0, done.stdout + done.stderr
    (store / "broken").mkdir()
    (store / "broken/model.yaml").write_text("name: broken\n")
    command = [FOUNT, "serve", "--model-store", str(store), "--port", "0", "--http-port", "0"]
    with served_by(command, home, None) as running:
        yield running


def test_the_good_models_are_served(served: Served) -> None:
    with Client(served.server) as client:
        assert client.sample("digits-vae", count=2, seed=1).shape == (2, 8, 8, 1)
        assert client.sample("shapes", label="b", count=3, seed=1).labels.tolist() == [1, 1, 1]


def test_a_refused_model_gives_the_reason_in_the_error(served: Served) -> None:
    with Client(served.server) as client, pytest.raises(ServerUnavailable, match="fount check"):
        client.sample("unchecked", count=1)


def test_models_that_are_not_served_are_named_at_the_start(served: Served) -> None:
    result = "".join(served.lines)
    assert "packed 2 of 4 models" in result
    assert "warning: not served: " in result
    assert "broken/model.yaml: " in result
    assert "warning: unchecked 1.0 is not served: " in result
