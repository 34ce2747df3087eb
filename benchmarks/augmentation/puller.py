"""A client process that pulls the plans of its input: `python -m benchmarks.augmentation.puller SERVER`."""

from __future__ import annotations

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.child import serve_commands
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
    """Pull plans, one for each command {"plan": FILE, "shards": S}; the digest is of the images of one shard."""
    with Client(server, timeout_s=None) as client:

        def handle(command: dict[str, Any]) -> dict[str, Any]:
            plan = augmentation_pb2.Plan.FromString(Path(command["plan"]).read_bytes())
            shards, start = command["shards"], time.monotonic()
            with ThreadPoolExecutor(shards) as pool:
                pulled = list(pool.map(partial(_pull, client, plan, shards), range(shards)))
            rows = sum(each for each, _ in pulled)
            return {"rows": rows, "rows_per_s": rows / (time.monotonic() - start), "digest": pulled[0][1]}

        serve_commands(handle)


if __name__ == "__main__":
    main(sys.argv[1])
