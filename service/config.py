"""The gateway's settings, checked once at the start.

Flags and their FOUNT_ environment twins enter through `service/commands.py`; every other room reads this value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from service.errors import SetupError

__all__ = ["CHUNK_BYTES", "GatewayConfig"]

CHUNK_BYTES = 1 << 20
"""The most data in one SampleChunk."""


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """How a gateway runs.

    Attributes:
        host: address to listen on, for gRPC and HTTP.
        port: gRPC port; 0 takes a free one.
        http_port: port of /metrics, /livez and /readyz; 0 takes a free one.
        default_versions: model name to the version an empty version means; otherwise the newest.
        required_models: names that must be ready before the gateway is; otherwise any one model is enough.
        max_streams: Sample streams open at once, over all callers.
        max_request_bytes: largest request message.
        batch_samples: most samples in one worker call.
        window_samples: most samples of one stream made but not yet taken by its client.
        window_bytes: the same, in bytes; times max_streams it bounds what unread samples can take.
        calls_per_worker: calls a worker holds at once: one runs, the others hide the way there.
        worker_timeout_s: longest a worker call may take.
        worker_attempts: how often a call is tried when workers go away.
        drain_grace_s: how long running streams may go on after a stop was asked for.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    http_port: int = 8000
    default_versions: dict[str, str] = field(default_factory=dict)
    required_models: frozenset[str] = frozenset()
    max_streams: int = 1024
    max_request_bytes: int = 4 << 20
    batch_samples: int = 1024
    window_samples: int = 4096
    window_bytes: int = 2 << 20
    calls_per_worker: int = 2
    worker_timeout_s: float = 100.0
    worker_attempts: int = 4
    drain_grace_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            SetupError: naming every setting out of range.
        """
        wrong = [
            f"{name} must be 0 to 65535" for name in ("port", "http_port") if not 0 <= getattr(self, name) <= 65535
        ]
        positive = ("max_streams", "max_request_bytes", "batch_samples", "window_samples", "window_bytes",
                    "calls_per_worker", "worker_timeout_s", "worker_attempts")  # fmt: skip
        wrong += [f"{name} must be above 0" for name in positive if not getattr(self, name) > 0]
        if not self.drain_grace_s >= 0:
            wrong.append("drain_grace_s must not be negative")
        if wrong:
            raise SetupError("; ".join(wrong))
