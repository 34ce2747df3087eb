"""Read a request whose models may have no workers yet: wait for these, then read it again.

Every field is checked against a model's card first, so a wrong request starts nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from service.catalog import Catalog
from service.errors import NotLoaded

__all__ = ["read_when_loaded"]

Request = TypeVar("Request")

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]


async def read_when_loaded(read: Callable[[], Awaitable[Request]], catalog: Catalog, context: Context) -> Request:
    """Return what `read` returns once every model that it chooses from the catalog has workers.

    Raises:
        NotLoaded, NotReady: workers did not start, or are loading where they are not started on demand.
        TooLate: they did not start within the RPC's deadline.
    """
    while True:
        try:
            return await read()
        except NotLoaded as error:
            await catalog.load(error, context.time_remaining())
