"""`fount` against the real stack: models, samples to PNG, NPZ and folders, errors with a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from fount import Client
from tests.e2e.processes import Served, run_fount


def test_models_are_listed(fount) -> None:
    result = fount("models")
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in ("digits-cvae", "digits-vae", "digits-classifier"))


def test_a_model_lists_its_labels_and_quality(fount) -> None:
    result = json.loads(fount("model", "digits-cvae", "--json").stdout)
    assert result["labels"] == [str(k) for k in range(10)]
    assert any(quality["metric"] == "label-accuracy" for quality in result["quality"])


def test_sevens_become_a_picture(fount, tmp_path: Path) -> None:
    result = fount(
        "sample", "digits-cvae", "--label", "7", "--count", "16", "--seed", "1", "--out", str(tmp_path / "7.png")
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "7.png") as picture:
        assert picture.size[0] > 64


def test_npz_holds_what_the_client_gives(fount, served: Served, tmp_path: Path) -> None:
    out = tmp_path / "7.npz"
    fount("sample", "digits-cvae", "--label", "7", "--count", "16", "--seed", "1", "--out", str(out))
    with Client(served.server) as client:
        samples = client.sample("digits-cvae", label=7, count=16, seed=1)
    assert (samples.shape, samples.dtype, samples.seed) == ((16, 8, 8, 1), np.dtype(np.uint8), 1)
    assert samples.labels.tolist() == [7] * 16
    with np.load(out, allow_pickle=False) as stored:
        assert stored["samples"].tobytes() == samples.tobytes()
        assert stored["labels"].tolist() == [7] * 16


def test_a_folder_holds_one_picture_a_sample_and_a_manifest(fount, tmp_path: Path) -> None:
    result = fount("sample", "digits-vae", "--count", "5", "--seed", "3", "--out", f"{tmp_path / 'five'}/")
    assert result.returncode == 0, result.stderr
    names = sorted(path.suffix for path in (tmp_path / "five").iterdir())
    assert names == [".json", ".png", ".png", ".png", ".png", ".png"]


def test_json_is_all_there_is_on_stdout(fount, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    result = fount("sample", "digits-cvae", "--count", "20000", "--seed", "1", "--json", "--out", str(out))
    summary = json.loads(result.stdout)
    assert (summary["count"], summary["seed"]) == (20000, 1)


def test_a_wrong_label_lists_the_labels(fount, tmp_path: Path) -> None:
    result = fount("sample", "digits-cvae", "--label", "11", "--out", str(tmp_path / "a.png"))
    assert result.returncode == 1
    assert "no label" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_absent_server_names_the_remedy(tmp_path: Path) -> None:
    result = run_fount("models", "--server", "127.0.0.1:1", "--timeout", "3", home=tmp_path)
    assert result.returncode == 1
    assert "fount serve" in result.stderr
