"""The address of a gateway: what users write becomes the target that gRPC connects to, or is refused in words."""

from __future__ import annotations

import os
import re
from ipaddress import IPv6Address

from fount.client.channel import DEFAULT_SERVER, default_server
from fount.errors import InvalidRequest
from fount.sampling.arguments import text_of

__all__ = ["server_target"]

_PORT = int(DEFAULT_SERVER.rpartition(":")[2])
_MAX_PORT = 65535
_GRPC_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):", re.IGNORECASE)
_PLAIN_SCHEMES, _TLS_SCHEMES = ("", "http", "grpc", "tcp"), ("https", "grpcs")
_PATH = re.compile("[/?#]")
_PARTS = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?")
_NAME = re.compile(r"[\w.-]+")


def server_target(server: str | None, *, tls: bool) -> str:
    """Return the gRPC target of a gateway's address.

    Args:
        server: "host:port", or "host" for the port of `DEFAULT_SERVER`; an IPv6 address is in brackets. http:// and
            grpc:// mean nothing and are left out. A target with a scheme of gRPC, as unix:/run/fount.sock, stays as it
            is. None: the environment variable FOUNT_SERVER, or `DEFAULT_SERVER`.
        tls: whether the channel is encrypted, as https:// and grpcs:// demand.

    Raises:
        InvalidRequest: it names no host and port.
        TypeError: it is no text.
    """
    text = text_of("server", default_server() if server is None else server).strip()
    if _GRPC_SCHEME.match(text):
        return text
    scheme, _, location = text.rpartition("://")
    address, *path = _PATH.split(location, maxsplit=1)
    if scheme.lower() in _TLS_SCHEMES and not tls:
        problem = f"{scheme}:// demands TLS, which `fount` does not support, and Client only with credentials"
        raise _refusal(text, f"{problem}; write {address} for a gateway without TLS")
    if scheme.lower() not in (*_PLAIN_SCHEMES, *_TLS_SCHEMES):
        raise _refusal(text, f"the scheme {scheme}:// is unknown; write {address}")
    if path and path[0]:
        raise _refusal(text, f"nothing may follow the port; write {address}")
    return _with_port(text, address)


def _with_port(text: str, address: str) -> str:
    """Check host and port, and add the port if it is missing."""
    example = f"write host:port, as in {DEFAULT_SERVER}"
    if (parts := _PARTS.fullmatch(address)) is None:
        raise _refusal(text, f"an IPv6 address is written in brackets, as in [::1]:{_PORT}")
    host, port = parts.groups()
    if not host:
        raise _refusal(text, f"{'it is empty' if not text else 'it names no host'}; {example}")
    if not (_is_ipv6(host[1:-1]) if host.startswith("[") else _NAME.fullmatch(host)):
        raise _refusal(text, f"{host!r} is not the name or address of a host; {example}")
    if port is None:
        return f"{host}:{_PORT}"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:9]) <= _MAX_PORT):
        raise _refusal(text, f"the port must be 1 to {_MAX_PORT}, and is {port!r}")
    return address


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _refusal(text: str, problem: str) -> InvalidRequest:
    origin = " of the environment variable FOUNT_SERVER" if text and os.environ.get("FOUNT_SERVER") == text else ""
    return InvalidRequest(f"The server address {text!r}{origin} cannot be used: {problem}.")
