"""A tiny generator with faults planted at rows that are known beforehand, packed as its author would.

A row whose first latent number is above `RARE` is a planted one; what happens there says its label: the worker sleeps,
exhausts its memory, or dies. No row that is drawn while a worker loads is one. The prior never draws those labels, so
requests without a condition are unaffected. The worker appends a line for each batch to a file, and takes as long for
each as a file says.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fount.address import Addresses, Stream
from handlers.cards import card as cards
from handlers.loading.build import build_module
from handlers.packaging.pack import pack
from handlers.verification.golden import record_golden
from tests.handlers.custom_models import LATENT, custom_card, write_custom

NAME = "planted"
SIDE = 32
SAMPLE_BYTES = SIDE * SIDE
SLEEPS, EXHAUSTS, DIES = 7, 8, 9
"""Labels whose planted rows do that."""

SLEEP_S = 4.0
RARE = 3.0

_TEMPLATE = '''
import json
import os
import resource
import time

import torch
from torch import nn

RARE, SLEEP_S = @RARE, @SLEEP_S


def sleep():
    time.sleep(SLEEP_S)


def exhaust():
    """Take memory until there is no more: of the process's own, so that the machine's is never at stake."""
    pages = int(open("/proc/self/statm").read().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), before[1]))
    try:
        taken = [torch.ones(4 << 20)]  # 16 MiB
        while True:
            taken.append(taken[-1] + 1)
    finally:
        taken = None
        resource.setrlimit(resource.RLIMIT_AS, before)


def die():
    os._exit(1)


FAULTS = {@SLEEPS: sleep, @EXHAUSTS: exhaust, @DIES: die}


def trace(folder, labels):
    """One line for each batch, written whole; then wait as long as the pace says for its rows."""
    line = json.dumps([time.time(), os.getpid(), torch.bincount(labels, minlength=10).tolist()]) + "\\n"
    file = os.open(os.path.join(folder, "batches"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
    try:
        with open(os.path.join(folder, "pace")) as pace:
            time.sleep(float(pace.read() or 0) * len(labels) / 64)
    except FileNotFoundError:
        pass


class Generator(nn.Module):
    def __init__(self, height=4, width=4, channels=1, classes=10):
        super().__init__()
        self.shape = (channels, height, width)
        self.embed = nn.Embedding(classes, 6)
        self.net = nn.Linear(6, height * width * channels)

    def sample(self, z, label):
        if "PLANTED_FOLDER" in os.environ:
            trace(os.environ["PLANTED_FOLDER"], label)
        for each in set(label[z[:, 0] > RARE].tolist()):
            FAULTS.get(each, lambda: None)()
        return torch.tanh(self.net(z + self.embed(label))).unflatten(1, self.shape)
'''
_NUMBERS = {"@RARE": RARE, "@SLEEP_S": SLEEP_S, "@SLEEPS": SLEEPS, "@EXHAUSTS": EXHAUSTS, "@DIES": DIES}


def source() -> str:
    """The author's file, with the numbers of this one."""
    return re.sub(r"@[A-Z_]+", lambda found: str(_NUMBERS[found[0]]), _TEMPLATE)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch that a worker started.

    Attributes:
        started: seconds since the epoch.
        pid: the worker.
        rows: how many of each label.
    """

    started: float
    pid: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """The folder that planted workers write to, and read their pace from.

    Attributes:
        folder: of both files.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        passed = dict.fromkeys(("FOUNT_SERVE_WORKER_ENV", "FOUNT_WORKER_WORKER_ENV"), "PLANTED_FOLDER")
        return {"PLANTED_FOLDER": str(self.folder)} | passed

    def set_pace(self, seconds: float) -> None:
        """Have every batch of 64 rows take so much longer, and others in proportion, as batches do."""
        (self.folder / "next").write_text(str(seconds))
        (self.folder / "next").rename(self.folder / "pace")

    def batches(self, since: float = 0.0) -> list[Batch]:
        """What workers started since a time of the epoch."""
        file = self.folder / "batches"
        lines = file.read_text().splitlines() if file.exists() else []
        batches = (Batch(started=started, pid=pid, rows=tuple(rows)) for started, pid, rows in map(json.loads, lines))
        return [each for each in batches if each.started >= since]

    def rows(self, label: int, since: float = 0.0) -> int:
        """How many rows of a label reached a worker, padding included."""
        return sum(batch.rows[label] for batch in self.batches(since))


def planted_index(seed: int) -> int:
    """The first index whose row is a planted one."""
    z = Addresses.of_range(seed, 0, 20_000).normals(Stream.LATENT, LATENT)
    return int(np.flatnonzero(z[:, 0] > RARE)[0])


def pack_planted(place: Path) -> Path:
    """Write the model and its archive; gives the folder of archives."""
    card = custom_card(
        (SIDE, SIDE, 1), classes=10, name=NAME, prior=(1 / 7,) * 7 + (0.0,) * 3,
        limits=cards.Limits(max_count=10_000_000, max_labels=1000, max_exec_batch=64),
    )  # fmt: skip
    config = dict(card.family.config) | {"classes": 10}
    card = dataclasses.replace(card, family=dataclasses.replace(card.family, config=config))
    folder, archives = place / NAME, place / "archives"
    write_custom(folder, source(), card)
    card = cards.load_card(folder)
    record_golden(card, build_module(card, folder), folder / card.golden.file)
    pack(folder, archives)
    return archives
