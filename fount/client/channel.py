"""The channel from a client to a gateway: default address, gRPC options, and when a proxy is used.

gRPC reaches every target through the proxy of the environment, also one on this machine, which no proxy can reach. So
whoever opens a channel takes its options from `options_for`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

__all__ = ["CHANNEL_OPTIONS", "DEFAULT_SERVER", "default_server", "options_for", "proxy_note"]

DEFAULT_SERVER = "127.0.0.1:50051"
"""The address at which `fount serve` listens by default."""

_MAX_MESSAGE_BYTES = 64 * 2**20

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # the client retries by itself, because only it knows what is safe to repeat
)
"""The options of every channel to a gateway, before `options_for`."""

_SOCKETS = ("unix:", "unix-abstract:", "vsock:")
_SCHEME = re.compile(r"^(dns|ipv4|ipv6):(//[^/]*/)?")
_PROXIES, _EXCEPTIONS = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")  # gRPC's order


def default_server() -> str:
    """Return the address in the environment variable FOUNT_SERVER, or `DEFAULT_SERVER`."""
    return os.environ.get("FOUNT_SERVER") or DEFAULT_SERVER


def options_for(target: str, options: tuple[tuple[str, int], ...] = CHANNEL_OPTIONS) -> tuple[tuple[str, int], ...]:
    """Return the options of a channel to a target: one on this machine is never reached through a proxy."""
    return (*options, ("grpc.enable_http_proxy", 0)) if _is_here(target) else options


def proxy_note(target: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return which proxy gRPC reaches a target through, and how to avoid it, to follow an address; "" without one."""
    variable = next((name for name in _PROXIES if name in environment), "")
    proxy, host = urlsplit(environment.get(variable, "")), _host_of(target)
    if proxy.scheme != "http" or not proxy.netloc or _is_here(target):
        return ""
    exceptions = next((environment[name] for name in _EXCEPTIONS if name in environment), "")
    if any(_covers(each.strip(), host) for each in exceptions.split(",") if each.strip()):
        return ""
    url = f"http://{proxy.netloc.rpartition('@')[2]}"  # without its password
    return f" through the proxy {url} of {variable}; set no_proxy={host} to connect directly"


def _host_of(target: str) -> str:
    """Return the host of a target in gRPC's syntax, without scheme, port and brackets."""
    address = _SCHEME.sub("", target)
    if found := re.fullmatch(r"\[(.*)\](:\d+)?", address):
        return found[1]
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_here(target: str) -> bool:
    """Whether a target is a socket of this machine or a loopback address; 0.0.0.0 and :: lead there as well."""
    if target.startswith(_SOCKETS):
        return True
    host = _host_of(target).lower().rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _covers(exception: str, host: str) -> bool:
    """Whether an entry of no_proxy, the end of a name or a range of addresses, covers a host."""
    try:
        return ip_address(host) in ip_network(exception, strict=False)
    except ValueError:
        return host.lower().endswith(exception.removeprefix(".").lower())
