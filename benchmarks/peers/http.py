"""A minimal HTTP/1.1 client: POST requests over kept connections, as little work a request as asyncio allows."""

from __future__ import annotations

import asyncio

__all__ = ["HttpError", "HttpPool"]

_HEAD_END = b"\r\n\r\n"


class HttpError(Exception):
    """A server answered with another status than 200, or closed the connection."""


class HttpPool:
    """Connections to one server, each used by one request at a time.

    Args:
        host: of the server.
        port: of the server.
        path: of every request.
    """

    def __init__(self, host: str, port: int, path: str) -> None:
        self._host, self._port = host, port
        self._head = (f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/octet-stream\r\n"
                      "Content-Length: ").encode()  # fmt: skip
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, timeout_s: float) -> bytes:
        """Send a body, and return that of the response.

        Raises:
            HttpError: the status is not 200, or the connection was closed.
            TimeoutError: there was no response in time.
        """
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self._idle), self._host, self._port)
        async with asyncio.timeout(timeout_s):
            answer = await connection.send(b"%s%d%s%s" % (self._head, len(body), _HEAD_END, body))
        self._idle.append(connection)
        return answer

    @property
    def idle(self) -> int:
        """Count the open connections without a request."""
        return len(self._idle)

    def close(self) -> None:
        """Close the idle connections."""
        for each in self._idle:
            each.close()


class _Connection(asyncio.Protocol):
    """One connection: a response is complete with the bytes of its Content-Length."""

    def __init__(self, idle: list[_Connection]) -> None:
        self._idle = idle
        self._received = bytearray()
        self._end = 0
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def close(self) -> None:
        self._transport.close()

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        self._received.clear()
        self._end = 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._end:
            start = self._received.find(_HEAD_END)
            if start < 0:
                return
            head = bytes(self._received[:start]).lower()
            if head[9:12] != b"200":
                self._fail(bytes(self._received[:200]).decode(errors="replace"))
                return
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._start = start + len(_HEAD_END)
            self._end = self._start + int(length)
        if len(self._received) >= self._end and self._answer and not self._answer.done():
            self._answer.set_result(bytes(memoryview(self._received)[self._start : self._end]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._idle:
            self._idle.remove(self)
        self._fail(f"the connection was closed: {exc}")

    def _fail(self, reason: str) -> None:
        self._transport.close()
        if self._answer and not self._answer.done():
            self._answer.set_exception(HttpError(reason))
