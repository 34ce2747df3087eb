"""What a client says when something else than a gateway listens at its address."""

import socketserver
import threading
from contextlib import contextmanager

import pytest

from fount import Client, aio
from fount.errors import NoServer
from fount.retry import RetryPolicy
from tests.contract.commands import fount

ONCE = RetryPolicy(first_attempts=1, attempts=1)
TLS_ALERT = bytes.fromhex("15030300020246")  # fatal, protocol_version: what OpenSSL answers to plain gRPC
HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
SSH = b"SSH-2.0-OpenSSH_9.6\r\n"


@contextmanager
def answering(reply):
    """A server that sends the same bytes on every connection, and then closes it; None: it stays silent."""
    ended = threading.Event()

    class Answer(socketserver.BaseRequestHandler):
        def handle(self):
            if reply is None:
                ended.wait(30)
                return
            self.request.recv(1024)
            self.request.sendall(reply)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()
            thread.join()


PORT = "name the gateway's gRPC port, by default 50051."
WRONG = pytest.mark.parametrize(
    ("reply", "message"),
    [
        (HTTP, f"{{}} is an HTTP port, which does not speak gRPC: {PORT}"),
        (SSH, f"What answers at {{}} does not speak gRPC: {PORT}"),
        (TLS_ALERT, f"{{}} closes every connection unanswered: it may demand TLS, which needs credentials; or {PORT}"),
    ],
    ids=["HTTP", "SSH", "TLS"],
)


@WRONG
def test_a_client_names_what_answers(reply, message):
    with answering(reply) as server, Client(server, retry=ONCE) as client:
        with pytest.raises(NoServer) as refused:
            client.models()
        assert str(refused.value) == message.format(server)


@WRONG
async def test_an_asyncio_client_names_what_answers(reply, message):
    with answering(reply) as server:
        async with aio.Client(server, retry=ONCE) as client:
            with pytest.raises(NoServer) as refused:
                await client.models()
        assert str(refused.value) == message.format(server)


SILENT = "No Fount server answers at {}: no connection was made within 0.3 s. Check the host and the port, "


def test_a_client_ends_by_its_timeout_when_nothing_answers(monkeypatch):
    monkeypatch.setattr("fount.client.calls._STATE_S", 0.05)
    with answering(None) as server, Client(server, timeout_s=0.3) as client:
        with pytest.raises(NoServer) as unary:
            client.sample("digits-cvae", count=1)
        with pytest.raises(NoServer) as stream:
            list(client.stream("digits-cvae", count=100))
        assert str(unary.value).startswith(SILENT.format(server))
        assert str(stream.value) == str(unary.value)


async def test_an_asyncio_client_ends_by_its_timeout_when_nothing_answers():
    with answering(None) as server:
        async with aio.Client(server, timeout_s=0.3) as client:
            with pytest.raises(NoServer) as unary:
                await client.sample("digits-cvae", count=1)
            with pytest.raises(NoServer) as stream:
                [chunk async for chunk in client.stream("digits-cvae", count=100)]
        assert str(unary.value).startswith(SILENT.format(server))
        assert str(stream.value) == str(unary.value)


def test_a_command_names_what_answers_in_one_line():
    with answering(HTTP) as server:
        result = fount("models", "--server", f"http://{server}/")
    assert (result.exit_code, result.stderr) == (
        1, f"Error: {server} is an HTTP port, which does not speak gRPC: {PORT}\n",
    )  # fmt: skip
