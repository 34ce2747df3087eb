"""Evaluate every shipped generator, and fetch its report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fount import Client
from tests.e2e.evaluations import retry, wait_for_success
from tests.e2e.processes import REPOSITORY, run_fount, serving
from tests.handlers.mnist import DATA, needs_mnist

pytestmark = pytest.mark.slow

PANELS = ["realism", "diversity", "memorisation", "label-fidelity"]
MOST_BYTES = 3 << 20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("shipped")
    packed = run_fount(
        "pack", "--all", "--model-store", str(REPOSITORY / "model_store"), "--out", "archives", home=home
    )
    assert packed.returncode == 0, packed.stderr
    mnist = DATA / "mnist" if (DATA / "mnist").is_dir() else DATA
    sets = ("--data-set", f"mnist={mnist.absolute()}") if mnist.is_dir() else ()
    with serving(home / "archives", home, *sets, runners=1) as served, Client(served.server) as client:
        yield client


def evaluated(client: Client, name: str, data: str, count: int) -> list[str]:
    """Evaluate a model; return the panels with a verdict, after checking that its report is not too large."""
    reader = f"{data}-classifier"
    created = retry(
        lambda: client.evaluate(name, reference=data, count=count, seed=4, extractor=reader, classifier=reader)
    )
    last = wait_for_success(client, created.id)
    assert all(panel.verdict in ("like-real", "near-real", "worse") for panel in last.panels)
    page = client.evaluation_report(created.id, "html")
    assert not page.redacted
    assert page.data.startswith(b"<!doctype html>")
    assert len(page.data) < MOST_BYTES
    return [panel.panel for panel in last.panels]


@pytest.mark.parametrize("name", ["digits-cvae", "digits-cgan"])
def test_a_conditional_generator_of_digits_has_all_panels(client: Client, name: str) -> None:
    assert evaluated(client, name, "digits", 1000) == PANELS


def test_an_unconditional_generator_has_all_panels_but_the_one_of_labels(client: Client) -> None:
    assert evaluated(client, "digits-vae", "digits", 1000) == PANELS[:3]


@needs_mnist
@pytest.mark.parametrize("name", ["mnist-cvae", "mnist-cgan"])
def test_a_generator_of_mnist_has_all_panels(client: Client, name: str) -> None:
    assert evaluated(client, name, "mnist", 1000) == PANELS
