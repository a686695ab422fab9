"""Bounded parallelism of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable


async def in_parallel[Item, Result](
    call: Callable[[Item], Awaitable[Result]], items: Iterable[Item], *, most: int
) -> list[Result]:
    """The results of ``call`` for each item, in the order of the items; at most ``most`` calls run at a time."""
    gate = asyncio.Semaphore(most)

    async def one(item: Item) -> Result:
        async with gate:
            return await call(item)

    return await asyncio.gather(*map(one, items))
