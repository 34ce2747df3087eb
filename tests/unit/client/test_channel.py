"""Which targets gRPC reaches through a proxy of the environment, and what errors say of it."""

import re
from pathlib import Path

import grpc
import pytest

from fount.client.channel import options_for, proxy_note
from fount.client.status import error_of
from tests.unit.client.test_client_errors import EndedCall

PROXY = {"http_proxy": "http://user:secret@proxy:3128"}
NOTE = " through the proxy http://proxy:3128 of http_proxy; set no_proxy=gateway to connect directly"


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051", "127.9.9.9:1", "localhost:50051", "LocalHost:1", "dns:///localhost:1", "[::1]:50051", "::1",
        "ipv4:127.0.0.1:1", "ipv6:[::1]:1", "0.0.0.0:50051", "[::]:1", "unix:/run/fount.sock", "unix-abstract:fount",
    ],
)  # fmt: skip
def test_this_machine_is_reached_without_a_proxy(target):
    assert ("grpc.enable_http_proxy", 0) in options_for(target)
    assert proxy_note(target, PROXY) == ""


@pytest.mark.parametrize("target", ["gateway:50051", "10.0.0.1:1", "[2001:db8::1]:1", "127.example.org:1"])
def test_other_hosts_are_reached_through_the_proxy(target):
    assert "grpc.enable_http_proxy" not in dict(options_for(target))
    assert "http_proxy" in proxy_note(target, PROXY)


def test_the_note_names_the_proxy_without_its_password_and_the_remedy():
    assert proxy_note("gateway:50051", PROXY) == NOTE


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({"http_proxy": "http://a:1"}, "http_proxy"),
        ({"http_proxy": "http://a:1", "https_proxy": "http://b:1"}, "https_proxy"),
        ({"https_proxy": "http://b:1", "grpc_proxy": "http://c:1"}, "grpc_proxy"),
    ],
)
def test_the_note_names_the_variable_that_grpc_reads(environment, variable):
    assert f" of {variable};" in proxy_note("gateway:1", environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HTTP_PROXY": "http://a:1"},  # gRPC reads lower case alone
        {"http_proxy": ""},
        {"http_proxy": "socks5://a:1"},
        PROXY | {"no_proxy": "localhost, .example.org"},
        PROXY | {"no_grpc_proxy": "example.org"},
    ],
)
def test_there_is_no_note_without_a_proxy_or_with_an_exception(environment):
    assert proxy_note("gateway.example.org:1", environment) == ""


def test_an_exception_may_be_a_range_of_addresses():
    assert proxy_note("10.1.2.3:1", PROXY | {"no_proxy": "10.0.0.0/8"}) == ""


def test_an_error_names_the_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    assert str(error_of(EndedCall(grpc.StatusCode.UNAVAILABLE), "gateway:50051")) == (
        f"No Fount server answers at gateway:50051{NOTE}. Start one with `fount serve`, or name another with --server."
    )


@pytest.mark.parametrize("package", ["fount", "service", "handlers"])
def test_every_channel_takes_its_options_from_there(package):
    folder = Path(__file__).parents[3] / package
    opened = [
        call
        for file in folder.rglob("*.py")
        for call in re.findall(r"(?:insecure|secure)_channel\([^\n]*(?:\n *[^\n)]+)?", file.read_text())
    ]
    assert [call for call in opened if "options_for(" not in call] == []
