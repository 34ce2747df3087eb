"""The HTTP side port: /livez, /readyz and /metrics. Liveness never depends on workers or queues.

It must not starve the gRPC port of file descriptors, whatever its clients do. So a connection serves one request, for a
few seconds at most, and a new one takes the place of the oldest when too many are open. Ending a connection that serves
several after so many seconds would break requests that arrive at that moment, as those of a scraper every 10 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.errors import SetupError
from service.telemetry.metrics import Metrics

__all__ = ["SidePort"]

_MAX_CONNECTIONS = 128
_CONNECTION_S = 10.0  # from its opening to its end: slow headers, idleness and slow readers included


class SidePort:
    """Serves health checks and metrics over HTTP.

    Args:
        why_not_ready: returns the reason why the gateway is not ready; empty when it is.
        why_waiting: returns the reason why evaluations wait although it is ready; empty when they do not.
        connection_s: how long a connection is kept.
    """

    def __init__(
        self,
        metrics: Metrics,
        why_not_ready: Callable[[], str],
        why_waiting: Callable[[], str] = str,
        *,
        connection_s: float = _CONNECTION_S,
    ) -> None:
        self._metrics = metrics
        self._why_not_ready, self._why_waiting = why_not_ready, why_waiting
        self._connection_s = connection_s
        self._connections: dict[web.RequestHandler, None] = {}  # the oldest first
        app = web.Application(middlewares=[_close_after])
        app.add_routes([
            web.get("/livez", self._live),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._series),
        ])  # fmt: skip
        self._runner = web.AppRunner(app, access_log=None)
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            SetupError: the port is taken or may not be used.
        """
        await self._runner.setup()
        connect = partial(self._connect, cast(web.Server, self._runner.server))
        try:
            self._listener = await asyncio.get_running_loop().create_server(connect, host, port)
        except OSError as error:
            raise SetupError(f"cannot listen on {host}:{port} for HTTP ({error.strerror}); "
                             "choose another with --http-port") from error  # fmt: skip
        return int(self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._listener:
            self._listener.close()
        await self._runner.cleanup()

    def _connect(self, make: Callable[[], web.RequestHandler]) -> web.RequestHandler:
        """Make the handler of a new connection."""
        if len(self._connections) >= _MAX_CONNECTIONS:
            self._end(next(iter(self._connections)))
        connection = make()
        self._connections[connection] = None
        asyncio.get_running_loop().call_later(self._connection_s, self._end, connection)
        return connection

    def _end(self, connection: web.RequestHandler) -> None:
        """Close a connection, without waiting for its client to read."""
        self._connections.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    async def _live(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        why, waiting = self._why_not_ready(), self._why_waiting()
        detail = f"; evaluations: {waiting}" if waiting else ""
        return web.Response(text=f"{why or 'ready'}{detail}\n", status=503 if why else 200)

    async def _series(self, request: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


@web.middleware
async def _close_after(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """End a connection after its answer."""
    response = await handler(request)
    response.force_close()
    return response
