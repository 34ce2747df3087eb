"""What the workers of one TorchServe said of themselves, asked again whenever they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
from google.protobuf.message import DecodeError

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.domain import ModelState
from service.errors import WorkerFault
from service.workers import Offer
from service.workers.torchserve.channel import TorchServeChannel
from service.workers.torchserve.describe import description_to_offer
from service.workers.torchserve.status import is_no_room

__all__ = ["Descriptions", "ModelVersion"]

_ANSWER_S = 30.0  # a description waits behind the calls that are queued
_PATIENCE_S = 1.0  # how long a look waits for it

ModelVersion = tuple[str, str]
"""Name and version."""


class Descriptions:
    """The last word of each model version's workers.

    Args:
        channel: where they are.
        answered: called when an answer came after nobody waited for it any more.
    """

    def __init__(self, channel: TorchServeChannel, answered: Callable[[], None]) -> None:
        self._channel = channel
        self._answered = answered
        self._told: dict[ModelVersion, tuple[frozenset[int], Offer]] = {}
        self._asking: dict[ModelVersion, asyncio.Task[None]] = {}

    async def offer(self, key: ModelVersion, pids: frozenset[int]) -> Offer | None:
        """What these workers offer; None while none of them has said so. Soon back: it does not wait for a slow one."""
        told = self._told.get(key)
        if told is None or told[0] != pids:
            asking = self._asking.get(key)
            if asking is None:
                asking = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(key, pids))
            if not (await asyncio.wait([asking], timeout=_PATIENCE_S))[0]:
                asking.add_done_callback(lambda _: self._answered())
        told = self._told.get(key)
        is_theirs = told is not None and (not told[0] or told[0] & pids)
        return told[1] if told and is_theirs else None

    def forget(self, key: ModelVersion) -> None:
        """Ask again before anything is said of it."""
        self._told.pop(key, None)

    async def close(self) -> None:
        """Ask no more."""
        asking = list(self._asking.values())
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        self._told.clear()

    async def _ask(self, key: ModelVersion, pids: frozenset[int]) -> None:
        try:
            self._told[key] = (pids, await self._describe(*key, len(pids)))
        except (grpc.aio.AioRpcError, DecodeError, WorkerFault, ValueError) as error:
            known = self._told.get(key)
            if known is not None and known[0] & pids:
                return  # what the others said holds until the newcomer is heard
            if isinstance(error, grpc.aio.AioRpcError) and is_no_room(error):
                return  # busy, not broken: the next look asks again
            reason = f"its worker does not describe itself: {str(error)[:200]}"
            offer = Offer(name=key[0], version=key[1], state=ModelState.UNAVAILABLE, reason=reason)
            self._told[key] = (frozenset(), offer)
        finally:
            del self._asking[key]

    async def _describe(self, name: str, version: str, workers: int) -> Offer:
        request = worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE)
        answer = await self._channel.predict(name, version, request.SerializeToString(), _ANSWER_S)
        return description_to_offer(name, version, worker_pb2.WorkerReply.FromString(answer), workers)
