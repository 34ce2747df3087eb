"""Rows of the real stack in the programs that train on them: loaders that go on, files that open."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fount import Client
from fount.adapters import Pull
from fount.augmentation.plan import PlanInfo
from tests.e2e.augmenting import EVERYTHING, Augmented
from tests.e2e.processes import environment, run_fount

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


@pytest.fixture(scope="module")
def plan(augmented: Augmented) -> PlanInfo:
    with Client(augmented.server) as client:
        return client.plan(EVERYTHING)


@pytest.fixture(scope="module")
def accepted(augmented: Augmented, plan: PlanInfo) -> dict[int, tuple[bytes, int]]:
    """Image and label of every row that has a sample, by row."""
    with Client(augmented.server) as client:
        batches = [batch.accepted() for batch in client.pull(plan, shards=1)]
    return {
        int(row): (image.tobytes(), int(label))
        for batch in batches
        for row, image, label in zip(batch.rows, batch.images, batch.labels, strict=True)
    }


def loader(pull: Pull, workers: int) -> DataLoader:
    return DataLoader(pull, batch_size=32, num_workers=workers, multiprocessing_context="fork" if workers else None)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_epoch_gives_exactly_the_remaining_rows(augmented, plan, accepted, workers: int) -> None:
    columns = ("image", "label", "row", "place")
    started = Pull(plan, augmented.server, columns=columns)
    seen: list[tuple[int, tuple[bytes, int]]] = []

    def keep(images: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> None:
        values = zip(rows.tolist(), images.numpy(), labels.tolist(), strict=True)
        seen.extend((row, (np.ascontiguousarray(image).tobytes(), label)) for row, image, label in values)

    for number, (images, labels, rows, places) in enumerate(loader(started, workers)):
        keep(images, labels, rows)
        started.track(places)
        if number == 20:
            break
    rest = Pull(plan, augmented.server, columns=columns)
    rest.load_state_dict(json.loads(json.dumps(started.state_dict())))
    for images, labels, rows, _ in loader(rest, workers):
        keep(images, labels, rows)
    assert sorted(row for row, _ in seen) == list(accepted)
    assert dict(seen) == accepted


def exported(augmented: Augmented, plan: PlanInfo, tmp_path: Path, format: str) -> Path:
    (tmp_path / "ticket").write_bytes(plan.ticket)
    ended = run_fount("pull", "ticket", "--out", "out", "--format", format, "--server", augmented.server, home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    return tmp_path / "out"


@pytest.mark.slow
def test_hugging_face_reads_its_parquet(augmented, plan, accepted, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    script = (
        "import sys, json, datasets, numpy as np\n"
        "rows = datasets.load_dataset(sys.argv[1], split='train', cache_dir=sys.argv[2])\n"
        "print(json.dumps([[r['index'], r['label'], np.asarray(r['image']).tobytes().hex()] for r in rows]))\n"
    )
    out = exported(augmented, plan, tmp_path, "parquet")
    command = [sys.executable, "-c", script, str(out), str(tmp_path / "cache")]
    result = subprocess.run(command, env=environment(tmp_path, {}), text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    read = {row: (bytes.fromhex(image), label) for row, label, image in json.loads(result.stdout.splitlines()[-1])}
    assert read == accepted


def test_pyarrow_reads_its_parquet(augmented, plan, accepted, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(exported(augmented, plan, tmp_path, "parquet") / "data")
    assert table["index"].to_pylist() == list(accepted)
    assert table["label"].to_pylist() == [label for _, label in accepted.values()]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_webdataset_reads_its_tars(augmented, plan, accepted, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    tars = sorted(str(file) for file in (exported(augmented, plan, tmp_path, "webdataset") / "data").glob("*.tar"))
    rows = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert [int(row["cls"]) for row in rows] == [label for _, label in accepted.values()]
    with tarfile.open(tars[0]) as file:
        assert file.getmembers()[0].mtime == 0


@pytest.mark.slow
def test_ray_reads_every_row(augmented, plan, accepted, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="ray is not installed; pip install 'fount[ray]'")
    script = (
        "import sys, json, ray\n"
        "from pathlib import Path\n"
        "from fount.adapters import PlanDatasource\n"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)\n"
        "source = PlanDatasource(Path('ticket').read_bytes(), sys.argv[1])\n"
        "rows = ray.data.read_datasource(source, override_num_blocks=4).take_all()\n"
        "print(json.dumps(sorted([int(row['row']), int(row['label'])] for row in rows)))\n"
    )
    (tmp_path / "ticket").write_bytes(plan.ticket)
    result = subprocess.run(
        [sys.executable, "-c", script, augmented.server], env=environment(tmp_path, {}), cwd=tmp_path, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [[row, label] for row, (_, label) in accepted.items()]
