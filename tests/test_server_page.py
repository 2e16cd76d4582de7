"""The page at ``/`` in a real browser, by keyboard: it asks for the key, answers, and holds axe's rules."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
import serving
import tiny
from tasks_data import SAMPLES
from test_causal_lm import TEMPLATE

from featherweight import recipe as recipes
from featherweight import workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (browser.CHROMIUM and browser.DRIVER), reason="no Chromium with chromedriver (apt install chromium-driver)"
    ),
]
TAB, ENTER = "\ue004", "\ue007"
MARKUP = "<img src=x onerror=alert(1)>"
PICTURES = os.environ.get("FEATHERWEIGHT_PICTURES")  # a folder for screenshots, to be looked at


@pytest.fixture(scope="module")
def server(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Server]:
    folder = tmp_path_factory.mktemp("page")
    for seed, name in enumerate(("first", "second")):
        rows = tiny.rows(80, seed=seed, labels=(f"NEGATIVE{MARKUP if seed else ''}", "POSITIVE"))
        content = tiny.recipe(
            models("bert"), tiny.save_jsonl(folder / f"{name}.jsonl", rows), training={"max_steps": 12}
        )
        workflow.run(recipes.parse(content), folder / name)
    with serving.running(folder / "first", folder / "second", key=serving.KEY) as started:
        yield started


@pytest.fixture(scope="module")
def page() -> Iterator[browser.Browser]:
    with browser.start() as started:
        yield started


def until(page: browser.Browser, condition: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := page.run(f"return {condition}")):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)
    return found


def faults(page: browser.Browser) -> list[Any]:
    axe = pytest.importorskip("axe_core_python")
    page.devtools("Page.setBypassCSP", enabled=True)
    page.run((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = page.run("return axe.run().then(found => found.violations)")
    page.devtools("Page.setBypassCSP", enabled=False)
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}]


def picture(page: browser.Browser, name: str) -> None:
    if PICTURES:
        page.screenshot(Path(PICTURES) / f"{name}.png", 0, page.run("return document.documentElement.scrollHeight"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_by_keyboard(width: int, scheme: str, page: browser.Browser, server: serving.Server) -> None:
    page.open(server.url + "/", width, scheme)
    until(page, "!document.getElementById('unlock').hidden && document.activeElement.id == 'key'")
    assert page.run("return document.getElementById('ask').hidden")
    assert faults(page) == []
    picture(page, f"key-{width}-{scheme}")
    page.press(*"wrong", ENTER)
    until(page, "document.getElementById('message').textContent.includes('not the key')")
    page.press(*serving.KEY, ENTER)
    until(page, "document.activeElement.id == 'text'")
    page.press(*"great ", *MARKUP, ENTER, *"awful film", TAB)
    boxes = page.run("return [...document.querySelectorAll('input[name=model]')].map(one => one.value)")
    assert boxes == ["first", "first@base", "second", "second@base"]
    assert page.run("return document.activeElement.value") == "first", "Tab leads from the text to the models"
    page.press(*[TAB] * len(boxes), ENTER)
    until(page, "document.querySelectorAll('.card').length == 8")
    texts = page.run("return [...document.querySelectorAll('blockquote')].map(one => one.textContent)")
    assert texts == [f"great {MARKUP}", "awful film"]
    expected = server.predict([f"great {MARKUP}"], "first", key=serving.KEY).json["predictions"][0]
    first = page.run(
        "const one = document.querySelector('.card'); return [one.querySelector('.label').textContent, one.innerText]"
    )
    assert first[0] == expected["label"]
    for label, value in expected["probabilities"].items():
        assert label in first[1]
        assert f"{value:.4f}" in first[1]
    assert page.run("return document.querySelectorAll('img').length") == 0, "labels and texts are text"
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert faults(page) == []
    names = page.run("return performance.getEntriesByType('resource').map(one => one.name)")
    assert all(name.startswith(server.url) for name in names)
    assert [one for one in page.log() if one["level"] != "DEBUG" and "401" not in one["message"]] == []
    picture(page, f"answers-{width}-{scheme}")


def test_a_mistake_is_said_and_ctrl_enter_asks(page: browser.Browser, server: serving.Server) -> None:
    page.open(server.url + "/")
    until(page, "document.activeElement.id == 'key'")
    page.press(*serving.KEY, ENTER)
    until(page, "document.activeElement.id == 'text'")
    page.run("document.querySelectorAll('input[name=model]').forEach(one => { one.checked = false })")
    page.run("document.getElementById('text').value = 'great'; document.getElementById('ask').requestSubmit()")
    until(page, "document.getElementById('message').textContent == 'Choose a model.'")
    page.run("document.querySelector('input[name=model]').checked = true; document.getElementById('text').focus()")
    page.run(
        "document.getElementById('text').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true}))"
    )
    until(page, "document.querySelectorAll('.card').length == 1")


def test_a_reply_of_another_kind_is_shown_too(
    page: browser.Browser, models: Callable[[str], Path], tmp_path: Path
) -> None:
    """Neither a label nor probabilities: whatever the reply holds."""
    rows = [{**row, "label": 10 * index} for index, row in enumerate(tiny.rows(80))]
    content = tiny.recipe(models("bert"), tiny.save_jsonl(tmp_path / "rows.jsonl", rows), training={"max_steps": 2})
    workflow.run(recipes.parse({**content, "task": "regression"}), tmp_path / "numbers")
    with serving.running(tmp_path / "numbers") as server:
        page.open(server.url + "/")
        until(page, "document.activeElement.id == 'text'")
        page.run("document.getElementById('text').value = 'great film'; document.getElementById('ask').requestSubmit()")
        until(page, "document.querySelectorAll('.card').length == 2")
        shown = page.run("return document.querySelector('.card .label').textContent")
        expected = server.predict(["great film"], "numbers").json["predictions"][0]["value"]
    assert float(shown) == pytest.approx(expected, rel=1e-3)
    assert page.run("return document.getElementById('message').textContent") == ""


@pytest.mark.parametrize("width", [1200, 390])
def test_all_labels_of_a_text_are_shown(
    width: int, page: browser.Browser, models: Callable[[str], Path], tmp_path: Path
) -> None:
    (sample,) = (one for one in SAMPLES if one.kind == "labels")
    content = tiny.recipe(models("bert"), sample.save(tmp_path, 120), training={"max_steps": 60, "learning_rate": 1e-2})
    workflow.run(recipes.parse({**content, "task": sample.task}), tmp_path / "several")
    texts = [row["text"] for row in sample.rows(4)]
    with serving.running(tmp_path / "several") as server:
        page.open(server.url + "/", width)
        until(page, "document.activeElement.id == 'text'")
        page.run("document.getElementById('text').value = arguments[0]", "\n".join(texts))
        page.run("document.getElementById('ask').requestSubmit()")
        until(page, "document.querySelectorAll('.card').length == 8")
        shown = page.run("return [...document.querySelectorAll('.card.tuned .label')].map((one) => one.textContent)")
        expected = server.predict(texts, "several").json["predictions"]
        picture(page, f"labels-{width}")
    assert shown == [", ".join(one["labels"]) or "no label" for one in expected]
    assert page.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1200, 390])
def test_a_pair_is_asked_for_by_the_names_of_its_columns(
    width: int, page: browser.Browser, models: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = [{"premise": "the plot", "hypothesis": row["text"], "label": row["label"]} for row in tiny.rows(80)]
    content = tiny.recipe(models("bert"), tiny.save_jsonl(tmp_path / "rows.jsonl", rows), training={"max_steps": 2})
    workflow.run(recipes.parse(content), tmp_path / "pairs")
    single = tiny.recipe(
        models("bert"), tiny.save_jsonl(tmp_path / "one.jsonl", tiny.rows(80)), training={"max_steps": 2}
    )
    workflow.run(recipes.parse(single), tmp_path / "single")
    label = "return document.querySelector('label[for={}]').textContent"
    with serving.running(tmp_path / "pairs", tmp_path / "single") as server:
        page.open(server.url + "/", width)
        until(page, "document.activeElement.id == 'text'")
        assert page.run(label.format("second")) == "Second text", "one of the models takes a single text"
        for name in ("single", "single@base"):
            page.run("document.querySelector(`input[value='${arguments[0]}']`).click()", name)
        assert [page.run(label.format(field)) for field in ("text", "second")] == ["premise", "hypothesis"]
        page.run("document.getElementById('text').focus()")
        page.press(*"the plot", ENTER, *"a film", TAB, *"great cast")
        page.run("document.getElementById('ask').requestSubmit()")
        until(page, "document.getElementById('message').textContent.startsWith('Write as many second texts')")
        page.press(ENTER, *"awful story")
        page.run("document.getElementById('ask').requestSubmit()")
        until(page, "document.querySelectorAll('.card').length == 4")
        texts = page.run("return [...document.querySelectorAll('blockquote')].map(one => one.textContent)")
        assert texts == ["the plot", "great cast", "a film", "awful story"]
        asked = {"text": "the plot", "text_pair": "great cast"}
        expected = server.predict([asked], "pairs").json["predictions"][0]["label"]
        assert page.run("return document.querySelector('.card .label').textContent") == expected
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert faults(page) == []
        picture(page, f"pairs-{width}")
        for name in ("pairs", "pairs@base", "single"):
            page.run("document.querySelector(`input[value='${arguments[0]}']`).click()", name)
        assert page.run("return document.getElementById('pair').hidden")


@pytest.mark.parametrize("width", [1200, 390])
def test_models_that_write_are_talked_with(width: int, page: browser.Browser, talker: serving.Server) -> None:
    """The tuned model beside the untuned one, each with what was said to it before, as it writes."""
    page.open(talker.url + "/", width)
    until(page, "document.activeElement.id == 'text'")
    assert page.run("return document.querySelector('label[for=text]').textContent") == "Message"
    said: list[dict[str, str]] = []
    for turn, text in enumerate(("the film", "a dull\nplot")):
        page.run(f"document.getElementById('text').value = {text!r}; document.getElementById('ask').requestSubmit()")
        until(page, f"document.querySelectorAll('.written').length == {2 * (turn + 1)}")
        until(
            page, "document.getElementById('message').textContent == '' && document.getElementById('text').value == ''"
        )
        said.append({"role": "user", "content": text})
        asked = {"model": "talker", "messages": said}
        expected = talker.ask("POST", "/v1/chat/completions", asked).json["choices"][0]["message"]["content"]
        assert page.run("return document.querySelector('article .card.tuned .written').textContent") == expected
        said.append({"role": "assistant", "content": expected})
    assert page.run("return document.querySelectorAll('article')[0].querySelector('blockquote').textContent") == text
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert faults(page) == []
    picture(page, f"talk-{width}")
    page.run("document.getElementById('again').click()")
    assert page.run("return document.querySelectorAll('article').length") == 0
    page.run("document.getElementById('text').value = 'the film'; document.getElementById('ask').requestSubmit()")
    until(page, "document.querySelectorAll('.written').length == 2 && document.getElementById('text').value == ''")
    first = talker.ask("POST", "/v1/chat/completions", {"model": "talker", "messages": said[:1]}).json
    shown = page.run("return document.querySelector('.card.tuned .written').textContent")
    assert shown == first["choices"][0]["message"]["content"], "nothing of before is remembered"


@pytest.fixture(scope="module")
def talker(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Server]:
    folder = tmp_path_factory.mktemp("talker")
    (sample,) = (one for one in SAMPLES if one.task == "causal-lm")
    rows = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in sample.rows(64)
    ]
    section = {"chat_template": TEMPLATE, "max_length": 32}
    content = tiny.recipe(models("llama-lm"), tiny.save_jsonl(folder / "rows.jsonl", rows), data=section)
    workflow.run(recipes.parse(content | {"task": "causal-lm"}), folder / "talker", progress=False)
    with serving.running(folder / "talker") as started:
        yield started
