"""Addresses of gateways as users write them."""

import pytest

from fount import Client
from fount.client.target import server_target
from fount.errors import InvalidRequest


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("box:1234", "box:1234"),
        ("box", "box:50051"),
        (" box:1234\n", "box:1234"),
        ("http://box:1234", "box:1234"),
        ("HTTP://box:1234/", "box:1234"),
        ("grpc://box", "box:50051"),
        ("tcp://10.0.0.1:50051", "10.0.0.1:50051"),
        ("my_box.example.org:1234/", "my_box.example.org:1234"),
        ("[::1]:1234", "[::1]:1234"),
        ("http://[fe80::1%eth0]", "[fe80::1%eth0]:50051"),
        ("dns:///box:1234", "dns:///box:1234"),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
        ("unix:/run/fount.sock", "unix:/run/fount.sock"),
    ],
)
def test_it_becomes_the_target_of_grpc(written, target):
    assert server_target(written, tls=False) == target


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", "it is empty; write host:port, as in 127.0.0.1:50051."),
        (":50051", "it names no host; write host:port, as in 127.0.0.1:50051."),
        ("box:99999", "the port must be 1 to 65535, and is '99999'."),
        ("box:0", "the port must be 1 to 65535, and is '0'."),
        ("box:", "the port must be 1 to 65535, and is ''."),
        ("box:grpc", "the port must be 1 to 65535, and is 'grpc'."),
        ("box:" + "9" * 5000, "the port must be 1 to 65535"),
        ("my box:1", "'my box' is not the name or address of a host; write host:port, as in 127.0.0.1:50051."),
        ("user@box:1", "'user@box' is not the name or address of a host"),
        ("[box]:1", "'[box]' is not the name or address of a host"),
        ("::1:50051", "an IPv6 address is written in brackets, as in [::1]:50051."),
        ("::1", "an IPv6 address is written in brackets, as in [::1]:50051."),
        ("http://box:1/v1?x=2", "nothing may follow the port; write box:1."),
        ("box:1#x", "nothing may follow the port; write box:1."),
        ("ftp://box:1", "the scheme ftp:// is unknown; write box:1."),
        ("https://box:1", "write box:1 for a gateway without TLS."),
        ("grpcs://box", "grpcs:// demands TLS"),
    ],
)
def test_it_is_refused_with_the_remedy(written, problem):
    with pytest.raises(InvalidRequest) as refused:
        server_target(written, tls=False)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_it_may_name_tls_where_the_channel_is_encrypted():
    assert server_target("https://box:1234/", tls=True) == "box:1234"


def test_it_comes_from_the_environment_which_the_refusal_says(monkeypatch):
    monkeypatch.setenv("FOUNT_SERVER", "box:99999")
    with pytest.raises(InvalidRequest, match="of the environment variable FOUNT_SERVER cannot be used"):
        Client()


def test_it_is_the_clients_server(monkeypatch):
    monkeypatch.delenv("FOUNT_SERVER", raising=False)
    with Client("http://box/") as named, Client() as default:
        assert (named.server, default.server) == ("box:50051", "127.0.0.1:50051")


def test_it_must_be_a_text():
    with pytest.raises(TypeError, match="server must be a str, got tuple"):
        Client(("box", 1234))
