"""OpenAI's routes, asked by OpenAI's own client over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import serving
import tiny
from fastapi import HTTPException
from test_causal_lm import FORMS, SAMPLE, TEMPLATE

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.inference.predictor import load_predictor
from featherweight.inference.shared_base import WritingBase
from featherweight.serving import openai as routes
from featherweight.serving.batching import Overloaded
from featherweight.serving.catalogue import Catalogue
from featherweight.serving.settings import Settings

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")

Models = Callable[[str], Path]
TALK = [{"role": "user", "content": "the film"}]


@pytest.fixture(scope="module")
def folder(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that talks, and one that labels."""
    folder = tmp_path_factory.mktemp("served")
    talks = tiny.save_jsonl(folder / "talks.jsonl", [FORMS["messages"](row) for row in SAMPLE.rows(96)])
    section = {"chat_template": TEMPLATE, "max_length": 32}
    content = tiny.recipe(models("llama-lm"), talks, data=section) | {"task": "causal-lm"}
    workflow.run(recipes.parse(content), folder / "talker", progress=False)
    labelled = tiny.save_jsonl(folder / "labels.jsonl", tiny.rows(48))
    workflow.run(recipes.parse(tiny.recipe(models("bert"), labelled)), folder / "labeller", progress=False)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[serving.Server]:
    with serving.running(folder / "talker", folder / "labeller", key=serving.KEY) as one:
        yield one


@pytest.fixture
def client(server: serving.Server) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=serving.KEY, max_retries=0)


def expected(folder: Path, asked: Any, **how: Any) -> dict[str, Any]:
    (reply,) = load_predictor(folder / "talker", generation=how).predict([asked])
    return reply


def test_a_conversation_goes_on_as_the_run_continues_it(client: Any, folder: Path) -> None:
    found = client.chat.completions.create(model="talker", messages=TALK, max_completion_tokens=6)
    reply = expected(folder, {"prompt": TALK}, max_new_tokens=6)
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", reply["text"])
    assert choice.finish_reason == reply["finish_reason"]
    assert found.object == "chat.completion"
    assert found.model == "talker"
    assert found.usage.completion_tokens == reply["tokens"]
    assert found.usage.prompt_tokens > 2
    assert found.usage.total_tokens == found.usage.prompt_tokens + reply["tokens"]


def test_a_stream_spells_the_same_text(client: Any) -> None:
    asked = {"model": "talker", "messages": TALK, "max_tokens": 8}
    whole = client.chat.completions.create(**asked)
    events = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *parts, end, usage = events
    assert "".join(one.choices[0].delta.content for one in parts) == whole.choices[0].message.content
    assert end.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert len({one.id for one in events}) == 1


def test_prompts_go_on_as_they_stand(client: Any, folder: Path) -> None:
    prompts = ["the film", "a plot with"]
    found = client.completions.create(model="talker", prompt=prompts, max_tokens=5)
    plain = load_predictor(folder / "talker", generation={"max_new_tokens": 5})
    plain.task.answer.chat = False  # the route takes texts as they are
    assert [one.text for one in found.choices] == [one["text"] for one in plain.predict(prompts)]
    (alone,) = client.completions.create(model="talker", prompt=prompts[1], max_tokens=5).choices
    assert alone.text == found.choices[1].text
    streamed = client.completions.create(model="talker", prompt=prompts[1], max_tokens=5, stream=True)
    assert "".join(one.choices[0].text for one in streamed) == alone.text


def test_what_is_written_ends_at_a_stop(client: Any) -> None:
    asked: dict[str, Any] = {"model": "talker", "prompt": "the film", "max_tokens": 12, "temperature": 2.0, "seed": 3}
    (whole,) = client.completions.create(**asked).choices
    words = whole.text.split()
    assert len(words) > 3
    stop = words[2]
    (cut,) = client.completions.create(**asked, stop=[stop]).choices
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    streamed = client.completions.create(**asked, stop=stop, stream=True)
    assert "".join(one.choices[0].text for one in streamed) == cut.text


def test_one_base_writes_for_all_its_adapters(models: Models, folder: Path, tmp_path: Path) -> None:
    """With a template that only one of them has, in turns: each as it is by itself, and the base as nobody tuned it."""
    plain = tiny.save_jsonl(tmp_path / "rows.jsonl", SAMPLE.rows(96))
    content = tiny.recipe(models("llama-lm"), plain, training={"seed": 5}) | {"task": "causal-lm"}
    workflow.run(recipes.parse(content), tmp_path / "other", progress=False)
    catalogue = Catalogue()
    for path in (folder / "talker", tmp_path / "other"):
        catalogue.load(path.name, str(path))
    served = {one.name: one for one in catalogue.all()}
    assert set(served) == {"talker", "talker@base", "other", "other@base"}
    backend = served["talker"].backend
    assert isinstance(backend, WritingBase) and all(one.backend is backend for one in served.values())
    asked = {"talker": TALK, "other": "the film"}
    asked |= {f"{name}@base": given for name, given in asked.items()}
    alone = {
        "talker": load_predictor(folder / "talker").predict([TALK])[0],
        "other": load_predictor(tmp_path / "other").predict(["the film"])[0],
        "other@base": load_predictor(models("llama-lm")).predict(["the film"])[0],
    }
    names, ready = [], []
    for name in ("talker", "other", "talker@base", "other@base", "talker"):
        one = served[name]
        ready += backend.prepare(one.key, one.task.questions([asked[name]]))
        names.append(one.key)
    found = backend.answer(names, ready)
    assert [reply["text"] for reply in found[:2]] == [alone[name]["text"] for name in ("talker", "other")]
    assert found[3]["text"] == alone["other@base"]["text"] != alone["other"]["text"]
    assert found[4] == found[0] != found[2]
    scored = {"prompt": "the film", "completion": " great"}
    (row,) = backend.prepare(served["other"].key, served["other"].task.questions([scored]))
    (reply,) = backend.answer([served["other"].key], [row])
    assert reply["nll"] == pytest.approx(load_predictor(tmp_path / "other").predict([scored])[0]["nll"], abs=1e-5)


def test_who_is_there(client: Any) -> None:
    assert {one.id for one in client.models.list()} == {"talker", "talker@base", "labeller", "labeller@base"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "nobody"}, "NotFoundError", "there is none of that name"),
        ({"model": "labeller"}, "UnprocessableEntityError", "writes no text"),
        ({"messages": []}, "UnprocessableEntityError", "messages"),
        ({"presence_penalty": 1.0}, "UnprocessableEntityError", "presence_penalty"),
        ({"max_tokens": 0}, "UnprocessableEntityError", "max_tokens"),
        ({"stop": [""]}, "UnprocessableEntityError", "stop"),
        ({"n": 2}, "UnprocessableEntityError", "body.n"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_can_not_be_done_is_refused_by_name(
    client: Any, changes: dict[str, Any], error: str, message: str, stream: bool
) -> None:
    with pytest.raises(getattr(openai, error), match=message):
        client.chat.completions.create(**{"model": "talker", "messages": TALK, "stream": stream, **changes})


class Counting:
    """A catalogue of one model that counts who has it, and a queue that takes nobody."""

    retry_after = 7

    def __init__(self, writes: bool, replies: bool) -> None:
        head = SimpleNamespace(replies=replies)
        self.task = SimpleNamespace(name="it", scores_tokens=writes, head=lambda: head)
        self.name, self.base_of, self.in_use = "one", None, 0

    def take(self, name: str) -> Any:
        self.in_use += 1
        return self

    def give_back(self, served: Any) -> None:
        self.in_use -= 1

    async def predict(self, served: Any, asked: Any) -> Any:
        raise Overloaded(self.retry_after)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("writes", "replies", "status"),
    [(False, False, 422), (True, True, 422), (True, False, 429)],
    ids=["labels", "no-talker", "full"],
)
def test_who_is_refused_gives_the_model_back(writes: bool, replies: bool, status: int, stream: bool) -> None:
    one: Any = Counting(writes, replies)
    shape = routes._Chat(routes.ChatRequest(model="one", messages=[routes.Message(**TALK[0])], stream=stream))
    request: Any = SimpleNamespace(state=SimpleNamespace(), receive=asyncio.Event().wait)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(routes._reply(shape, [{"prompt": TALK}], request, one, one, Settings()))
    assert refused.value.status_code == status
    assert one.in_use == 0


class Slow(Counting):
    """Writes six parts, with a pause before each; before the last a long one where it is stuck."""

    def __init__(self, stuck: bool) -> None:
        super().__init__(writes=True, replies=False)
        self.stuck = stuck

    async def predict(self, served: Any, asked: Any) -> Any:
        for part in range(6):
            await asyncio.sleep(10 if self.stuck and part == 5 else 0.2)
            asked[0].writing.heard(f"{part} ")
        return [{"finish_reason": "length"}]


@pytest.mark.parametrize("stuck", [False, True])
def test_a_stream_takes_as_long_as_it_goes_on(stuck: bool) -> None:
    """Longer than the server's limit, which is for the next part of it."""
    one: Any = Slow(stuck)
    asked = routes.ChatRequest(model="one", messages=[routes.Message(**TALK[0])], stream=True)

    async def events() -> list[dict[str, Any]]:
        (prompt,) = routes._prompts(one, [{"prompt": TALK}], Settings())
        streamed = routes._streamed(routes._Chat(asked), prompt, {}, one, one, Settings(timeout=0.8), ExitStack())
        lines = [line.removeprefix("data: ") async for line in streamed]
        return [json.loads(line) for line in lines if line.strip() not in {"", "[DONE]"}]

    *parts, last = asyncio.run(events())
    said = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    assert said == "".join(f"{part} " for part in range(5 if stuck else 6))
    if stuck:
        assert last["error"]["message"] == "the answer did not go on for 0.8 s"
    else:
        assert last["choices"][0]["finish_reason"] == "length"


def test_the_key_is_wanted(server: serving.Server) -> None:
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="another-key", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="talker", messages=TALK)


def test_who_goes_away_leaves_the_server_to_others(client: Any, server: serving.Server) -> None:
    endless = {"model": "talker", "messages": TALK, "temperature": 2.0, "max_tokens": 40}
    with client.chat.completions.create(**endless, stream=True) as stream:
        next(iter(stream))
    found: list[Any] = []
    asking = [
        threading.Thread(
            target=lambda: found.append(client.chat.completions.create(model="talker", messages=TALK, max_tokens=4))
        )
        for _ in range(4)
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join(60)
    assert len({one.choices[0].message.content for one in found}) == 1
    assert len(found) == 4
    assert server.ask("GET", "/ready").status == 200
