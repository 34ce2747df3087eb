"""Plans and their rows on the real stack: data sets to augment, gateways before one TorchServe, rows as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fount import Client
from fount.augmentation.plan import AnyPlan
from fount.augmentation.rows import RowBatch
from fount.readers import DatasetSource, read_dataset
from tests.e2e.processes import FOUNT, Served, listening, run_fount, served_by, serving

MODELS = ("digits-classifier", "digits-cvae", "transforms")
GENERATOR = "digits-cvae"
REAL, RESAMPLED, TRANSFORMED, SYNTHESISED, RECONSTRUCTED = 1, 2, 3, 4, 6

EVERYTHING = {
    "dataset": "digits",
    "seed": 11,
    "target": {"factor": 2},
    "mix": {"resampled": 1, "transformed": 1, "synthesised": 1},
    "synthesis": {"model": GENERATOR, "min_confidence": 0.96, "copy_quantile": 0.05, "attempts": 3},
    "shards": 3,
}
"""Four sources, with filters strict enough to refuse samples, and a few slots."""

COLUMNS = (
    "rows", "images", "labels", "rejected", "weights", "sources", "source_rows", "seeds", "indices", "attempts",
    "transforms", "confidences", "copy_ratios",
)  # fmt: skip
"""Everything that a row tells; what a batch leaves out, as NaN where nothing was asked, is filled in."""

_FILLS = {"weights": np.int64(1), "confidences": np.float32("nan"), "copy_ratios": np.float32("nan")}

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """A running stack with data sets.

    Attributes:
        served: `fount serve`.
        sets: the folder of data sets, and of sets.yaml that names them.
        keys: the file of ticket keys.
    """

    served: Served
    sets: Path
    keys: Path

    @property
    def server(self) -> str:
        return self.served.server


@contextmanager
def augmenting_stack(archives: Path, home: Path) -> Iterator[Augmented]:
    """`fount serve` with the data sets of `write_sets`."""
    sets, keys = write_sets(home / "sets"), home / "ticket-keys"
    with serving(archives, home, "--data-sets", str(sets / "sets.yaml"), "--ticket-keys", str(keys)) as served:
        yield Augmented(served=served, sets=sets, keys=keys)


@contextmanager
def second_gateway(stack: Augmented, home: Path, *options: str) -> Iterator[Served]:
    """`fount gateway` before the TorchServe of the stack, with its data sets and keys."""
    java = stack.served.java()
    command = [FOUNT, "gateway", "--port", "0", "--http-port", "0", "--torchserve", listening(java.pid)]
    command += ["--token-file", str(Path(java.cwd()) / "key_file.json")]
    command += ["--data-sets", str(stack.sets / "sets.yaml"), "--ticket-keys", str(stack.keys), *options]
    with served_by(command, home, None) as served, Client(served.server) as client:
        client.sample(GENERATOR, count=1)  # waits until its workers are known
        yield served


def write_sets(folder: Path) -> Path:
    """Data sets that requests are refused for: one changes, one has a class too many, one has larger images."""
    folder.mkdir()
    train = read_dataset(DatasetSource(name="digits")).splits["train"]
    images, labels = train.images(np.arange(200)), train.labels[:200]
    np.savez(folder / "changing.npz", images=images, labels=labels)
    np.savez(folder / "strange.npz", images=images, labels=np.where(np.arange(200) < 20, 10, labels))
    np.savez(folder / "large.npz", images=images.repeat(2, axis=1).repeat(2, axis=2), labels=labels)
    names = [str(digit) for digit in range(10)]
    (folder / "sets.yaml").write_text(
        f"changing: {{path: changing.npz, classes: {names}}}\n"
        f"strange: {{path: strange.npz, classes: {[*names, 'ten']}}}\n"
        f"large: {{path: large.npz, classes: {names}}}\n"
    )
    return folder


def pack_models(out: Path, store: Path) -> Path:
    """Archives of what augmentation needs, and of nothing else."""
    packed = run_fount("pack", *MODELS, "--model-store", str(store), "--out", str(out), home=out)
    assert packed.returncode == 0, packed.stderr
    return out


# --- Rows -------------------------------------------------------------------------------------------------------------


def columns_of(batches: Iterable[RowBatch]) -> Columns:
    """Every row of some batches, whatever their boundaries."""
    whole = list(batches)
    return {name: np.concatenate([_column(batch, name) for batch in whole]) for name in COLUMNS}


def _column(batch: RowBatch, name: str) -> np.ndarray:
    value = getattr(batch, name)
    return np.full(len(batch), _FILLS[name]) if value is None else value


def same(a: Columns, b: Columns) -> bool:
    """Whether all bytes of all columns are equal."""
    return all(a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes() for name in COLUMNS)


def pulled(client: Client, plan: AnyPlan, **query) -> Columns:
    return columns_of(client.pull(plan, provenance="full", **query))


def pulled_in_pieces(clients: Sequence[Client], plan: AnyPlan, shard: int, shards: int, stops: Iterable[int]):
    """Pull a shard, break off before each stop within it, and go on there, each time by the next client."""
    at, batches = None, []
    for number, stop in enumerate([*stops, None]):
        stream = clients[number % len(clients)].pull(
            plan, shard=shard, shards=shards, start_index=at, provenance="full"
        )
        for batch in stream:
            batches.append(batch if stop is None else batch.take(batch.rows < stop))
            if stop is not None and batch.end_index >= stop:
                break
        stream.close()
        at = stop
    return batches
