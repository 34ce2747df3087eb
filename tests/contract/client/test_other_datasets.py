"""A plan as a data set of Hugging Face `datasets` and of Ray Data, read by the real libraries."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from fount import Client, adapters
from fount.errors import InvalidRequest, MissingExtra
from tests.contract.fake_plans import CLASSES, FakePlans, row_pixels, serving_plans

ROWS = 50
REJECTED = frozenset({0, 17, 49})
ACCEPTED = [row for row in range(ROWS) if row not in REJECTED]
EXTRAS = [("Pull", "torch"), ("iterable_dataset", "huggingface"), ("PlanDatasource", "ray")]
PIXELS = sorted(row_pixels(row).tobytes() for row in ACCEPTED)

# In a process of its own: Ray starts others, which one that serves gRPC should not.
READ_BY_RAY = """
import json, sys
import numpy as np, ray
from fount.adapters import PlanDatasource
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
source = PlanDatasource(bytes.fromhex(sys.argv[2]), sys.argv[1], provenance="ids")
rows = ray.data.read_datasource(source, override_num_blocks=4).take_all()
print()
print(json.dumps(sorted([int(row["row"]), np.asarray(row["image"]).ravel().tolist()] for row in rows)))
"""


@contextmanager
def plan_of(**fields):
    with serving_plans(FakePlans(**{"rows": ROWS, "rejected": REJECTED, **fields})) as server:
        with Client(server) as client:
            plan = client.plan({"dataset": "digits", "seed": 1})
        yield plan, server


def pixels_of(examples):
    return sorted(np.asarray(example["image"]).tobytes() for example in examples)


@pytest.mark.parametrize(("name", "extra"), EXTRAS)
def test_it_names_the_extra_that_is_missing(monkeypatch, name, extra):
    def absent(module):
        raise ModuleNotFoundError("No module named 'library'", name="library")

    monkeypatch.setattr(adapters, "import_module", absent)
    with pytest.raises(MissingExtra, match=rf"pip install 'fount\[{extra}\]' \(missing: library\)"):
        getattr(adapters, name)


def test_it_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'Push'"):
        adapters.Push  # noqa: B018


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def _library(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        pytest.importorskip("datasets", reason="datasets is not installed; pip install 'fount[huggingface]'")

    def test_it_gives_images_and_class_labels(self):
        with plan_of() as (plan, server):
            examples = adapters.iterable_dataset(plan, server, shards=4)
            first = next(iter(examples))
        assert examples.features["label"].names == list(CLASSES)
        assert np.array_equal(np.asarray(first["image"]), row_pixels(1)[..., 0])
        assert first["label"] == 1

    def test_it_gives_every_row_once(self):
        with plan_of() as (plan, server):
            assert pixels_of(adapters.iterable_dataset(plan, server, shards=4)) == PIXELS

    def test_its_nodes_share_the_rows(self):
        from datasets.distributed import split_dataset_by_node

        with plan_of() as (plan, server):
            examples = adapters.iterable_dataset(plan.ticket, server, shards=4)
            nodes = [list(split_dataset_by_node(examples, rank=rank, world_size=2)) for rank in range(2)]
        assert pixels_of(nodes[0] + nodes[1]) == PIXELS
        assert min(map(len, nodes)) > 20

    def test_it_resumes_from_its_state(self):
        with plan_of() as (plan, server):
            examples = adapters.iterable_dataset(plan, server, shards=4)
            started = iter(examples)
            taken = [next(started) for _ in range(20)]
            state = examples.state_dict()
            resumed = adapters.iterable_dataset(plan, server, shards=4)
            resumed.load_state_dict(state)
            assert pixels_of([*taken, *resumed]) == PIXELS

    def test_it_refuses_zero_shards(self):
        with pytest.raises(InvalidRequest, match="shards: is 0"):
            adapters.iterable_dataset(b"ticket", shards=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
class TestRay:
    @pytest.fixture
    def source(self):
        pytest.importorskip("ray.data", reason="ray is not installed; pip install 'fount[ray]'")
        with plan_of() as (plan, server):
            yield adapters.PlanDatasource(plan, server, provenance="full")

    def test_its_tasks_make_up_the_plan(self, source):
        tables = [table for task in source.get_read_tasks(4) for table in task()]
        rows = [row for table in tables for row in table.column("row").to_pylist()]
        assert rows == ACCEPTED

    def test_its_tables_hold_provenance(self, source):
        table = next(iter(source.get_read_tasks(1)[0]()))
        found = {name: table.column(name)[1].as_py() for name in ("label", "source", "source_row", "rotate_degrees")}
        assert found == {"label": 2, "source": 3, "source_row": 102, "rotate_degrees": 1.0}

    def test_it_makes_at_most_one_task_per_row(self, source):
        assert len(source.get_read_tasks(1000)) == ROWS

    def test_it_estimates_its_size(self, source):
        assert source.estimate_inmemory_data_size() == ROWS * (16 + 8)

    @pytest.mark.slow
    def test_ray_reads_every_row_once(self, tmp_path):
        pytest.importorskip("ray.data", reason="ray is not installed; pip install 'fount[ray]'")
        environment = {**os.environ, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
        with plan_of() as (plan, server):
            command = [sys.executable, "-c", READ_BY_RAY, server, plan.ticket.hex()]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout.splitlines()[-1]) == [[row, row_pixels(row).ravel().tolist()] for row in ACCEPTED]
