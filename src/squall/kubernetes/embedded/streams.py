"""Answers that go on: sent until their source, their client or the server ends."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from squall.api.cluster import ApiError


async def until_first(*ways: Coroutine[Any, Any, Any]) -> None:
    """Run all until one has ended, then cancel the others.

    Raises:
        Exception: that of the one that ended, if it failed.
    """
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class Stream:
    """An ASGI response that sends every part as it comes.

    Args:
        parts: what to send; closed at the end.
        media_type: of all of it.
        stopping: set when the server stops.
        seconds: how long it may take; None: as long as it likes.
        head_first: send the head at once; else with the first part, so that a source that refuses
            to begin is still answered by a Status.
    """

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        media_type: str,
        stopping: asyncio.Event,
        *,
        seconds: float | None = None,
        head_first: bool = True,
    ) -> None:
        self._parts, self._type = parts, media_type.encode()
        self._stopping, self._seconds = stopping, seconds
        self._head_first, self._begun = head_first, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything.

        Raises:
            ApiError: the source refused before anything was sent.
        """
        if self._head_first:
            await self._put(b"", send)
        ends = [self._pump(send), _gone(receive), self._stopping.wait()]
        if self._seconds is not None:
            ends.append(asyncio.sleep(self._seconds))
        try:
            await until_first(*ends)
        except ApiError:
            if not self._begun:
                raise
        if not self._begun:
            await self._put(b"", send)
        await send({"type": "http.response.body", "body": b""})

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._parts):  # type: ignore[type-var]  # generators all of them
            async for part in self._parts:
                await self._put(part, send)

    async def _put(self, part: bytes, send: Send) -> None:
        if not self._begun:
            self._begun = True
            headers = [(b"content-type", self._type), (b"cache-control", b"no-cache, private")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": part, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
