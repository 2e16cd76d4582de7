"""What routes share: looking a model up, and waiting for its answer for as long as the client does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException, Request

from featherweight.records.questions import Question
from featherweight.serving.batching import Batcher, Draining, Overloaded
from featherweight.serving.catalogue import Catalogue, Served


def take(catalogue: Catalogue, name: str | None) -> Served:
    """The model that a request names, never another one; to be given back."""
    if name is None:
        tuned = [one.name for one in catalogue.all() if one.base_of is None]
        if len(tuned) != 1:
            raise HTTPException(422, f"model: name one of {', '.join(sorted(tuned)) or 'none'}")
        name = tuned[0]
    served = catalogue.take(name)
    if served is None:
        raise HTTPException(404, "model: there is none of that name; see /v1/models")
    return served


async def answered(
    request: Request, batcher: Batcher, served: Served, asked: Sequence[Question], timeout: float
) -> list[dict[str, Any]]:
    """The model's answers. Raises HTTPException where there is no room, or no time."""
    try:
        found: list[dict[str, Any]] = await _unless_gone(request, batcher.predict(served, asked), timeout)
        return found
    except (Overloaded, Draining, TimeoutError) as error:
        raise refusal(error, batcher, timeout) from None


def refusal(error: Exception, batcher: Batcher, timeout: float) -> HTTPException:
    """What a client is told of a full queue, a shutdown or the end of its time."""
    if isinstance(error, Overloaded):
        return HTTPException(429, str(error), {"retry-after": str(error.retry_after)})
    reason = str(error) or f"no answer within {timeout:g} s"
    return HTTPException(503, reason, {"retry-after": str(batcher.retry_after)})


async def _unless_gone(request: Request, work: Any, timeout: float) -> Any:
    """The work's result; the work is cancelled when the client goes away, or time is up."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        async with asyncio.timeout(timeout):
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            request.state.cancelled = True
            raise HTTPException(499, "the client went away")
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
