"""The gateway's settings, validated once at the start.

Each setting has its default, its bounds and its help text here. `service/cli/options.py` makes options of them, and a
`GatewayConfig` of a command line and the environment; every other package reads this value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from service.datasets import DatasetSettings
from service.errors import SetupError

__all__ = ["CHUNK_BYTES", "GatewayConfig"]

CHUNK_BYTES = 1 << 20
"""The most data in one SampleChunk."""


def _setting(default: Any, help_text: str = "", *, least: float | None = None, above: float | None = None) -> Any:
    """Make a field of `GatewayConfig`: a number is at least `least`, or larger than `above`; with help, an option."""
    return field(default=default, metadata={"help": help_text, "least": least, "above": above})


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """How a gateway runs.

    Attributes:
        default_versions: model name: the version that an empty version means; otherwise the newest.
        required_models: models that must be ready before the gateway is; without any, one ready model is enough.
        datasets: data sets in addition to the built-in ones.
        ticket_keys: file of the keys that sign tickets of plans; None: a key of this process alone.
        plans: folder where plans are kept; None: in memory.
        jobs: database of evaluations, as sqlite:///PATH or postgresql://…; None: evaluations are off.
        runners: number of this gateway's processes that run evaluations.
        runner_options: their command line, except for the gateway's address.
        max_request_bytes: limit of one request message.
        worker_attempts: how often a call is tried when workers go away.
    """

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(50051, "gRPC port; 0: any free one.", least=0)
    http_port: int = _setting(8000, "Port of /metrics, /livez and /readyz; 0: any free one.", least=0)
    default_versions: dict[str, str] = field(default_factory=dict)
    required_models: frozenset[str] = frozenset()
    max_evaluation_samples: int = _setting(50_000, "Limit of the samples of one evaluation.", least=100)
    keep_reports_days: float = _setting(30.0, "How long evaluations are kept after they have ended.", above=0)
    report_bytes: int = _setting(1 << 30, "Limit of the bytes of all reports; the oldest are deleted first.", least=1)
    drain_grace_s: float = _setting(10.0, "Seconds that running streams may continue after a stop signal.", least=0)
    max_streams: int = _setting(1024, "Limit of open sample streams; more are refused with a time to retry.", least=1)
    max_open_calls: int = _setting(
        1024, "Limit of open calls of each other streaming RPC, as watches; one caller may have 512.", least=1
    )
    idle_timeout_s: float = _setting(
        300.0, "Seconds without a request after which a call that streams requests, as Augment, is ended.", above=0
    )
    max_request_bytes: int = _setting(4 << 20, least=1)
    max_batch_ms: float = _setting(20.0, "How long calls before an interactive request may occupy a worker.", above=0)
    bulk_batch_ms: float = _setting(200.0, "How long a worker call may take when no request is interactive.", above=0)
    max_queue_s: float = _setting(
        60.0, "Limit of the work waiting for a model, in seconds until its workers finish it.", above=0
    )
    caller_queue_s: float = _setting(
        30.0,
        "The same for the work of one caller; below --max-queue-s, so that none fills a model's queue alone.",
        above=0,
    )
    total_queue_s: float = _setting(600.0, "Limit of all waiting work, in seconds of one worker.", above=0)
    window_bytes: int = _setting(
        4 << 20, "Flow-control window: samples of a stream not yet read by its client.", least=1
    )
    max_unread_bytes: int = _setting(
        256 << 20, "The same for all streams together: half is shared, half is a minimum for each.", least=1
    )
    worker_timeout_s: float = _setting(100.0, "Seconds a worker call may take.", above=0)
    worker_wait_s: float = _setting(30.0, "Seconds that streams wait for a worker when none is ready.", above=0)
    worker_attempts: int = _setting(4, least=1)
    datasets: tuple[DatasetSettings, ...] = ()
    ticket_keys: Path | None = None
    plans: Path | None = None
    jobs: str | None = None
    runners: int = _setting(0, least=0)
    runner_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            SetupError: some are out of range; names every one.
        """
        wrong = []
        for each in fields(self):
            value, least, above = getattr(self, each.name), each.metadata.get("least"), each.metadata.get("above")
            if least is not None and not value >= least:  # NaN as well
                wrong.append(f"{each.name} must be at least {least:g}")
            if above is not None and not value > above:
                wrong.append(f"{each.name} must be above {above:g}")
        wrong += [f"{name} must be at most 65535" for name in ("port", "http_port") if getattr(self, name) > 65535]
        if self.bulk_batch_ms < self.max_batch_ms:
            wrong.append("bulk_batch_ms must not be below max_batch_ms")
        if self.runners and not self.jobs:
            wrong.append("runners need a database of jobs")
        if wrong:
            raise SetupError("; ".join(wrong))
