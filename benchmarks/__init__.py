"""Benchmarks: Fount compared with its hardware, and with TorchServe alone.

A model of the store enters; ratios measured in one run leave, as a table and as raw rounds. Run them with
`python -m benchmarks`; README.md explains each row.
"""

import os

_DIRECT = "127.0.0.1,localhost"  # everything that benchmarks connect to

os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), _DIRECT)))
