"""The gateway's settings, validated once at the start.

`service/cli/options.py` makes them from the command line and the environment; every other package reads this value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from service.datasets.configuration import DatasetSettings
from service.errors import SetupError

__all__ = ["CHUNK_BYTES", "GatewayConfig"]

CHUNK_BYTES = 1 << 20
"""The most data in one SampleChunk."""

_MIN_EVALUATION_SAMPLES = 100  # enough for every panel


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """How a gateway runs.

    Attributes:
        host: address to listen on, for gRPC and HTTP.
        port: gRPC port; 0: any free one.
        http_port: port of /metrics, /livez and /readyz; 0: any free one.
        default_versions: model name: the version that an empty version means; otherwise the newest.
        required_models: models that must be ready before the gateway is; without any, one ready model is enough.
        max_streams: limit of open streams of all callers.
        max_request_bytes: largest request message.
        max_batch_ms: how long the calls that a worker holds may take together while there is interactive work.
        bulk_batch_ms: how long one call may take otherwise.
        max_queue_s: limit of the work waiting for one model, in seconds until its ready workers finish it.
        caller_queue_s: limit of the work waiting for one caller, in seconds of one worker.
        total_queue_s: limit of all waiting work, in seconds of one worker.
        window_bytes: flow-control window: samples of one stream that its client has not taken yet.
        max_unread_bytes: the same for all streams together; half is shared, half is a minimum for each.
        worker_timeout_s: limit of the time of a worker call.
        worker_wait_s: how long streams wait for a ready worker after there was one.
        worker_attempts: how often a call is tried when workers go away.
        drain_grace_s: how long running streams may continue after a stop signal.
        datasets: data sets in addition to the built-in one.
        ticket_keys: file of the keys that sign tickets of plans; None: a key of this process alone.
        plans: folder where plans are kept; None: in memory.
        jobs: database of evaluations, as sqlite:///PATH or postgresql://…; None: evaluations are off.
        runners: number of this gateway's processes that run evaluations.
        runner_options: their command line, except for the gateway's address.
        max_evaluation_samples: limit of the samples of one evaluation.
        keep_reports_days: how long evaluations are kept after they have ended.
        report_bytes: limit of the bytes of all reports; the oldest are deleted first.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    http_port: int = 8000
    default_versions: dict[str, str] = field(default_factory=dict)
    required_models: frozenset[str] = frozenset()
    max_streams: int = 1024
    max_request_bytes: int = 4 << 20
    max_batch_ms: float = 20.0
    bulk_batch_ms: float = 200.0
    max_queue_s: float = 60.0
    caller_queue_s: float = 600.0
    total_queue_s: float = 600.0
    window_bytes: int = 4 << 20
    max_unread_bytes: int = 256 << 20
    worker_timeout_s: float = 100.0
    worker_wait_s: float = 30.0
    worker_attempts: int = 4
    drain_grace_s: float = 10.0
    datasets: tuple[DatasetSettings, ...] = ()
    ticket_keys: Path | None = None
    plans: Path | None = None
    jobs: str | None = None
    runners: int = 0
    runner_options: tuple[str, ...] = ()
    max_evaluation_samples: int = 50_000
    keep_reports_days: float = 30.0
    report_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            SetupError: some are out of range; names every one.
        """
        wrong = [
            f"{name} must be 0 to 65535" for name in ("port", "http_port") if not 0 <= getattr(self, name) <= 65535
        ]
        positive = ("max_streams", "max_request_bytes", "max_batch_ms", "bulk_batch_ms", "max_queue_s",
                    "caller_queue_s", "total_queue_s", "window_bytes", "max_unread_bytes", "worker_timeout_s",
                    "worker_wait_s", "worker_attempts", "keep_reports_days", "report_bytes")  # fmt: skip
        wrong += [f"{name} must be above 0" for name in positive if not getattr(self, name) > 0]
        if self.bulk_batch_ms < self.max_batch_ms:
            wrong.append("bulk_batch_ms must not be below max_batch_ms")
        if self.max_evaluation_samples < _MIN_EVALUATION_SAMPLES:
            wrong.append(f"max_evaluation_samples must be at least {_MIN_EVALUATION_SAMPLES}")
        if self.runners < 0:
            wrong.append("runners must not be negative")
        if self.runners and not self.jobs:
            wrong.append("runners need a database of jobs")
        if not self.drain_grace_s >= 0:
            wrong.append("drain_grace_s must not be negative")
        if wrong:
            raise SetupError("; ".join(wrong))
