"""PostgreSQL databases for tests.

The server is FOUNT_TEST_POSTGRES (default postgresql://postgres@127.0.0.1:5432/postgres). Tests create databases of
their own there, and drop them. Without a server they are skipped, unless FOUNT_REQUIRE names postgres.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

_SERVER = os.environ.get("FOUNT_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


@contextmanager
def postgres() -> Iterator[str]:
    """Create a database, yield its URL, and drop it."""
    try:
        server = psycopg.connect(_SERVER, autocommit=True, connect_timeout=2)
    except psycopg.OperationalError as error:
        message = (
            f"no PostgreSQL at {_SERVER.rpartition('@')[2]} ({str(error).splitlines()[0]}); start one for this test"
        )
        if "postgres" in os.environ.get("FOUNT_REQUIRE", "").replace(" ", "").split(","):
            pytest.fail(f"{message} (FOUNT_REQUIRE names it)")
        pytest.skip(message)
    name = f"fount_test_{secrets.token_hex(6)}"
    with server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{_SERVER.rpartition('/')[0]}/{name}"
        finally:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
