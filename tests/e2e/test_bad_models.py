"""Models that must not be served: tampered golden samples, weights, cards; two versions side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file

from fount import Client
from fount.errors import ServerUnavailable
from tests.e2e.processes import REPOSITORY, run_fount, serving

SHIPPED = REPOSITORY / "model_store"


def edit_card(folder: Path, **changes) -> None:
    card = yaml.safe_load((folder / "model.yaml").read_text())
    (folder / "model.yaml").write_text(yaml.safe_dump(card | changes, sort_keys=False))


def pack(store: Path, out: Path, name: str):
    return run_fount("pack", name, "--model-store", str(store), "--out", str(out), home=out.parent)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    shutil.copytree(SHIPPED / "digits-vae", store / "digits-vae")
    return store


@pytest.mark.slow
def test_two_versions_and_a_failing_model_are_served_side_by_side(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "archives"
    shutil.copytree(store / "digits-vae", store / "newer")
    edit_card(store / "newer", version="2.0")
    shutil.copytree(store / "digits-vae", store / "bent")
    edit_card(store / "bent", name="bent")
    with safe_open(store / "bent" / "golden.safetensors", "numpy") as golden:
        tensors = {name: golden.get_tensor(name) for name in golden.keys()}  # noqa: SIM118  # not a mapping
        metadata = golden.metadata()
    tensors["images"] = (tensors["images"].astype(int) + 9).clip(0, 255).astype(np.uint8)
    save_file(tensors, store / "bent" / "golden.safetensors", metadata | {"numerics": "another"})
    for name in ("digits-vae", "newer", "bent"):
        packed = pack(store, out, name)
        assert packed.returncode == 0, packed.stderr
    with serving(out, tmp_path) as served, Client(served.server) as client:
        versions = {(model.name, model.version): model for model in client.models()}
        assert sorted(versions) == [("bent", "1.0"), ("digits-vae", "1.0"), ("digits-vae", "2.0")]
        with pytest.raises(ServerUnavailable, match="golden"):
            client.sample("bent", count=1)
        old, new = (client.sample(f"digits-vae:{version}", count=50, seed=1) for version in ("1.0", "2.0"))
        assert old.tobytes() == new.tobytes()
        assert str(client.sample("digits-vae", count=1).model).startswith("digits-vae:2.0@")


def test_weights_of_another_digest_are_not_packed(store: Path, tmp_path: Path) -> None:
    weights = store / "digits-vae" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    result = pack(store, tmp_path / "out", "digits-vae")
    assert result.returncode == 1
    assert "digest" in result.stderr
    assert not list((tmp_path / "out").glob("*.mar")) if (tmp_path / "out").exists() else True


def test_a_misspelt_key_names_the_nearest_one(store: Path, tmp_path: Path) -> None:
    edit_card(store / "digits-vae", intendet_use="x")
    result = pack(store, tmp_path / "out", "digits-vae")
    assert result.returncode == 1
    assert "intended_use" in result.stderr
    assert "Traceback" not in result.stderr
