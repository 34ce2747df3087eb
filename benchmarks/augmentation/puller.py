"""A client process that pulls: `python -m benchmarks.augmentation.puller SERVER`, told plans by its input."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from fount import Client
from fount.v1 import augmentation_pb2

__all__ = ["main"]


def _pull(client: Client, plan: augmentation_pb2.Plan, shards: int, shard: int) -> tuple[int, str]:
    rows, digest = 0, hashlib.sha256()
    for batch in client.pull(plan, shard=shard, shards=shards):
        rows += len(batch.images)
        digest.update(batch.images.tobytes())
    return rows, digest.hexdigest()


def main(server: str) -> None:
    """Pull plans, told one a line as {"plan": FILE, "shards": S}; the digest is of the images of one shard."""
    with Client(server, timeout_s=None) as client:
        _say({"ready": True})
        for line in sys.stdin:
            told = json.loads(line)
            plan = augmentation_pb2.Plan.FromString(Path(told["plan"]).read_bytes())
            shards, begun = told["shards"], time.monotonic()
            with ThreadPoolExecutor(shards) as pool:
                pulled = list(pool.map(partial(_pull, client, plan, shards), range(shards)))
            rows = sum(each for each, _ in pulled)
            _say({"rows": rows, "rows_per_s": rows / (time.monotonic() - begun), "digest": pulled[0][1]})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
