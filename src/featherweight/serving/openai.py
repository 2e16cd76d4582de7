"""OpenAI's routes for models that write text, as its own clients call them: ``/v1/chat/completions`` and
``/v1/completions``, whole or streamed (server-sent events)."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from featherweight.errors import DataError, Interrupted
from featherweight.records.dialogues import Dialogue
from featherweight.records.questions import Question, Writing
from featherweight.serving.asking import answered, refusal, take
from featherweight.serving.batching import Batcher, Draining, Overloaded
from featherweight.serving.catalogue import Catalogue, Served
from featherweight.serving.settings import Settings
from featherweight.tasks import Task
from featherweight.tasks.reading.dialogues import of_given

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PATHS = (CHAT, COMPLETIONS)
_MOST_STOPS = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Message(_Strict):
    role: str
    content: str


class StreamOptions(_Strict):
    include_usage: bool = False


class _Asked(_Strict):
    """What both routes take. Other parameters of OpenAI's are refused by name rather than passed over."""

    model: str | None = Field(None, description="a name of `/v1/models`; may be left out where there is one run")
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(0.0, description="0, the default, is greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | list[str] | None = None
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="passed over")

    def options(self) -> dict[str, Any]:
        """By ``GenerationConfig``'s names."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > _MOST_STOPS or not all(stop):
            raise HTTPException(422, f"stop: up to {_MOST_STOPS} texts that are not empty were expected")
        given = {"max_new_tokens": self.most, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return {key: value for key, value in given.items() if value is not None} | (
            {"stop": tuple(stop)} if stop else {}
        )

    @property
    def most(self) -> int | None:
        return self.max_tokens


class ChatRequest(_Asked):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Asked):
    prompt: str | list[str] = Field(description="a text, or several", min_length=1)


class Reason(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Refusal(BaseModel):
    detail: str
    error: Reason = Field(description="the same, as OpenAI's clients read it")


def error(said: str, status: int) -> dict[str, Any]:
    """A refusal as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"message": said, "type": kind, "param": None, "code": None}


def asked_with(task: Task) -> Literal["", "text", "messages"]:
    """What a model of this task is asked by these routes: nothing where it writes no text."""
    if not task.scores_tokens:
        return ""
    return "text" if getattr(task.answer, "chat", None) is False else "messages"


def add_routes(app: FastAPI, catalogue: Catalogue, batcher: Batcher, settings: Settings) -> None:
    """Add both routes to an application."""
    refusals: dict[int | str, Any] = {code: {"model": Refusal} for code in (404, 408, 413, 422, 429, 503)}

    @app.post(CHAT, responses=refusals)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """What the assistant says next."""
        messages = [message.model_dump() for message in asked.messages]
        return await _reply(_Chat(asked), [{"prompt": messages}], request, catalogue, batcher, settings)

    @app.post(COMPLETIONS, responses=refusals)
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        """How each prompt goes on."""
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        if len(prompts) > settings.max_texts:
            raise HTTPException(422, f"prompt: {len(prompts)} are more than {settings.max_texts}; send them in parts")
        if asked.stream and len(prompts) > 1:
            raise HTTPException(422, "stream: one prompt at a time can be streamed")
        return await _reply(_Completion(asked), prompts, request, catalogue, batcher, settings)


class _Shape:
    """How replies are spelled."""

    kind: str
    chunk_kind: str
    mark: str

    def __init__(self, asked: _Asked) -> None:
        self.asked = asked
        self.head = {"id": f"{self.mark}-{uuid.uuid4().hex}", "created": int(time.time())}

    def choice(self, index: int, reply: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def part(self, text: str, reason: str | None) -> dict[str, Any]:
        raise NotImplementedError


class _Chat(_Shape):
    kind, chunk_kind, mark = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, index: int, reply: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": reply["text"]}
        return {"index": index, "message": message, "finish_reason": reply["finish_reason"], "logprobs": None}

    def part(self, text: str, reason: str | None) -> dict[str, Any]:
        delta = {"role": "assistant", "content": text} if reason is None else {}
        return {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}


class _Completion(_Shape):
    kind, chunk_kind, mark = "text_completion", "text_completion", "cmpl"

    def choice(self, index: int, reply: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "text": reply["text"], "finish_reason": reply["finish_reason"], "logprobs": None}

    def part(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}


async def _reply(
    shape: _Shape, given: Sequence[Any], request: Request, catalogue: Catalogue, batcher: Batcher, settings: Settings
) -> Response:
    served = take(catalogue, shape.asked.model)
    with ExitStack() as held:
        held.callback(catalogue.give_back, served)
        request.state.model, request.state.texts = served.name, len(given)
        prompts, options = _prompts(served, given, settings), shape.asked.options()
        if shape.asked.stream:
            streamed = _streamed(shape, prompts[0], options, served, batcher, settings, held.pop_all())
            await anext(streamed)  # what is refused is refused before the answer begins
            return StreamingResponse(streamed, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        questions = [Question(one.asked, dialogue=one, writing=Writing(options)) for one in prompts]
        replies = await answered(request, batcher, served, questions, settings.timeout)
    choices = [shape.choice(index, reply) for index, reply in enumerate(replies)]
    content = {**shape.head, "object": shape.kind, "model": served.name, "choices": choices, "usage": _usage(replies)}
    return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")


def _prompts(served: Served, given: Sequence[Any], settings: Settings) -> list[Dialogue]:
    """What is to be continued. Raises HTTPException where the model writes none, or it is too long."""
    if not served.task.scores_tokens:
        raise HTTPException(422, f"model: {served.name} is for {served.task.name} and writes no text; see /v1/predict")
    try:
        found = [of_given(one, chat=False) for one in given]
    except DataError as error:
        raise HTTPException(422, str(error)) from None
    if served.task.head().replies and any(one.is_chat for one in found):
        raise HTTPException(
            422, f"model: {served.name} replies to each text by itself, not to messages; see {COMPLETIONS}"
        )
    if any(len(one.asked) > settings.max_text_characters for one in found):
        raise HTTPException(422, f"a prompt has more than {settings.max_text_characters:,} characters")
    return found


def _usage(replies: Sequence[dict[str, Any]]) -> dict[str, int]:
    read, written = (sum(reply.get(key, 0) for reply in replies) for key in ("prompt_tokens", "tokens"))
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _streamed(
    shape: _Shape,
    prompt: Dialogue,
    options: dict[str, Any],
    served: Served,
    batcher: Batcher,
    settings: Settings,
    held: ExitStack,
) -> AsyncIterator[str]:
    """The events of an answer. The first that is given is none: it is empty once the question is admitted.

    Args:
        held: is closed when all is told.
    """
    parts: asyncio.Queue[str] = asyncio.Queue()
    hear, stop = _listener(parts)
    question = Question(prompt.asked, dialogue=prompt, writing=Writing(options, hear))
    working = asyncio.ensure_future(batcher.predict(served, [question]))
    try:
        await asyncio.sleep(0)  # so that it is refused now, where it is
        if working.done():
            try:
                working.result()
            except (Overloaded, Draining) as busy:
                raise refusal(busy, batcher, settings.timeout) from None
        yield ""
        try:
            async with asyncio.timeout(settings.timeout) as limit:
                async for text in _until_done(parts, working):
                    limit.reschedule(asyncio.get_running_loop().time() + settings.timeout)
                    yield _event(shape, served, [shape.part(text, None)])
        except TimeoutError:
            late = error(f"the answer did not go on for {settings.timeout:g} s", 503)
            yield f"data: {json.dumps({'error': late})}\n\n"
            return
        (reply,) = working.result()
        yield _event(shape, served, [shape.part("", reply["finish_reason"])])
        if shape.asked.stream_options is not None and shape.asked.stream_options.include_usage:
            yield _event(shape, served, [], usage=_usage([reply]))
        yield "data: [DONE]\n\n"
    finally:
        stop()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        held.close()


def _listener(parts: asyncio.Queue[str]) -> tuple[Callable[[str], None], Callable[[], None]]:
    """What the model's thread tells each part of the text, and what ends its writing."""
    loop, gone = asyncio.get_running_loop(), False

    def hear(text: str) -> None:
        if gone:
            raise Interrupted("the client went away")
        loop.call_soon_threadsafe(parts.put_nowait, text)

    def stop() -> None:
        nonlocal gone
        gone = True

    return hear, stop


async def _until_done(parts: asyncio.Queue[str], working: asyncio.Future[Any]) -> AsyncIterator[str]:
    """Parts as they come, until the answer is there."""
    while not working.done() or not parts.empty():
        getting = asyncio.ensure_future(parts.get())
        await asyncio.wait({getting, working}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            yield getting.result()
        else:
            getting.cancel()
            await asyncio.sleep(0)


def _event(shape: _Shape, served: Served, choices: list[dict[str, Any]], **more: Any) -> str:
    content = {**shape.head, "object": shape.chunk_kind, "model": served.name, "choices": choices, **more}
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
