"""Connections that are opened and not used."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest

from service.telemetry.http import SidePort
from service.telemetry.metrics import Metrics
from service.workers.memory import MemoryPool
from tests.contract.gateways import request, serving

HALF_A_REQUEST = b"GET /livez HTTP/1.1\r\nHost: "
CONNECTIONS, KEPT = 200, 128


@asynccontextmanager
async def side_port(**settings: float):
    port = SidePort(Metrics("test"), lambda: "", **settings)
    number = await port.start("127.0.0.1", 0)
    try:
        yield number
    finally:
        await port.close()


async def connect(port: int, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("sent", [b"", HALF_A_REQUEST], ids=["nothing", "half-a-request"])
async def test_a_connection_without_a_request_is_closed(sent: bytes) -> None:
    async with side_port(connection_s=0.1) as port:
        reader, writer = await connect(port, sent)
        assert await until_closed(reader) == b""
        writer.close()


async def test_a_connection_is_closed_after_its_answer() -> None:
    async with side_port(connection_s=60) as port:
        reader, writer = await connect(port, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        head, _, body = (await until_closed(reader)).partition(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert body == b"alive\n"
        writer.close()


async def test_unfinished_requests_leave_room_for_others() -> None:
    async with side_port() as port:
        held = [await connect(port, HALF_A_REQUEST) for _ in range(CONNECTIONS)]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/livez") as response:
            assert await response.text() == "alive\n"
        closed = [reader for reader, _ in held if reader.at_eof() or reader.exception()]
        assert len(closed) == CONNECTIONS + 1 - KEPT
        for _, writer in held:
            writer.close()


async def test_grpc_connections_leave_descriptors_to_others(pool: MemoryPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.gateway.raise_descriptor_limit", lambda: 8)
    async with serving(pool) as running:
        await running.sample(request())  # takes one of the four connections
        held = [await connect(running.gateway.port, b"") for _ in range(3)]
        reader, writer = await connect(running.gateway.port, b"")
        assert await until_closed(reader) == b""
        await running.sample(request())
        for _, each in (*held, (reader, writer)):
            each.close()
