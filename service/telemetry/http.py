"""The HTTP side port: /livez, /readyz and /metrics. Liveness never depends on workers or queues."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.errors import SetupError
from service.telemetry.metrics import Metrics

__all__ = ["SidePort"]


class SidePort:
    """Serves health checks and metrics over HTTP.

    Args:
        why_not_ready: returns the reason why the gateway is not ready; empty when it is.
    """

    def __init__(self, metrics: Metrics, why_not_ready: Callable[[], str]) -> None:
        self._metrics = metrics
        self._why_not_ready = why_not_ready
        app = web.Application()
        app.add_routes([
            web.get("/livez", self._live),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._series),
        ])  # fmt: skip
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            SetupError: the port is taken or may not be used.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise SetupError(f"cannot listen on {host}:{port} for HTTP ({error.strerror}); "
                             "choose another with --http-port") from error  # fmt: skip
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        why = self._why_not_ready()
        return web.Response(text=f"{why or 'ready'}\n", status=503 if why else 200)

    async def _series(self, request: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
