"""Names and texts that mean something to a shell, to Markdown, HTML, YAML, Python, a terminal or a file system."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError
from featherweight.sources import packages
from featherweight.storage import names

EVIL = [
    "$(touch ran) `touch ran`", "a\n```\n# heading\n---\n: [", "<script>alert(1)</script> <img src=x onerror=alert(1)>",
    "'\"''' \\' \\", "[a](javascript:alert(1)) ![x](y) | & &lt; *b* ~c~", "caf\u00e9 \U0001f600 \u202e \x7f \x85 {{ 7*7 }} {% x %}",
]  # fmt: skip

# Row 56.


@pytest.mark.parametrize(
    "name",
    [
        "../../etc", "/abs", "a/b", "..", ".", "", "a" * 300, "a\0b", "CON", "con.txt", "a.", "\u0430dmin", "%2e%2e", "a b", "a\\b",
    ],
)  # fmt: skip
def test_row_56_names_of_runs(name: str, cli: Callable[..., Any], tmp_path: Path) -> None:
    content = {"name": name, "model": {"name": "m"}, "data": {"train_file": "t.csv"}}
    with pytest.raises(ConfigError, match="name") as caught:
        recipes.parse(content)
    assert caught.value.exit_code == 2
    if name == "../../etc":
        ended = cli("run", "--model", "m", "--data", "d.csv", "--set", f'name="{name}"')
    else:
        return
    assert ended.returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("paths", "called"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["/x/runs/one/a", "/x/runs/two/a"], ["one/a", "two/a"]),
        (["a", "b"], ["a", "b"]),
        (["runs/a", "other/a"], ["runs/a", "other/a"]),
        (["runs/a", "runs/ab/"], ["a", "ab"]),
        (["runs/a", "runs/a/seed-1"], ["runs/a", "runs/a/seed-1"]),
        (["runs/a", "/x/b"], ["runs/a", "/x/b"]),
        (["../a", "../b"], ["a", "b"]),
        (["./a", "b"], ["a", "b"]),
        (["runs/a"], ["runs/a"]),
    ],
)
def test_runs_are_told_apart_by_what_their_paths_do_not_share(paths: list[str], called: list[str]) -> None:
    assert names.apart(paths) == called


def test_row_56_names_with_dots_and_dashes_are_fine() -> None:
    for name in ("demo", "a..b", "v1.0-rc_2", "COM", "console", "A" * 64):
        recipes.parse({"name": name, "model": {"name": "m"}, "data": {"train_file": "t.csv"}})


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "model/../../x", "", "x" * 300, "a\0b"])
def test_row_56_package_paths_stay_in_the_package(name: str) -> None:
    inside = not name
    if inside:
        assert packages.locate("package:peft/").name == "peft"
    else:
        with pytest.raises(ConfigError, match="ships no"):
            packages.locate(f"package:peft/{name}")


@pytest.mark.parametrize("revision", ["../../x", "a/../b", "/x", "", "a\0", "x" * 300])
def test_row_56_revisions_become_paths_in_the_hub_cache(revision: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.revision"):
        recipes.parse({"model": {"name": "a/b", "revision": revision}, "data": {"train_file": "t.csv"}})
    for good in ("main", "v1.0", "refs/pr/1", "0123456789abcdef"):
        recipes.parse({"model": {"name": "a/b", "revision": good}, "data": {"train_file": "t.csv"}})


def test_row_56_shards_stay_in_the_folder(models: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    from featherweight.errors import ModelError
    from featherweight.sources import models as sources

    folder = tmp_path / "m"
    shutil.copytree(models("bert"), folder)
    shutil.move(folder / "model.safetensors", tmp_path / "outside.safetensors")
    shutil.copy(tmp_path / "outside.safetensors", folder / "part.safetensors")
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "..", "gone.safetensors"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelError, match=r"index\.json"):
            sources.find(str(folder))


def test_row_56_printable() -> None:
    assert names.printable("a\x1b[2J\r\nb\u202ec\0") == "a\\x1b[2J\\r\\nb\\u202ec\\x00"
    assert names.printable("\u00e9 \U0001f469\u200d\U0001f680 \u05e9") == "\u00e9 \U0001f469\u200d\U0001f680 \u05e9"


def test_row_56_an_error_can_not_steer_the_terminal(cli: Callable[..., Any]) -> None:
    ended = cli("predict", "./no\x1b[2Jsuch", "--text", "x")
    assert ended.returncode == 2
    assert "\x1b" not in ended.stderr
    assert "no\\x1b[2Jsuch" in ended.stderr


# Row 58.


def test_row_58_tables_on_the_terminal_show_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from featherweight.report import tables
    from featherweight.report.console import Console

    Console().show(tables.key_values("[/title]", {"label": "[/b] [red]x[/red] :smile:"}), "[/b]")
    shown = capsys.readouterr().out
    assert "[/title]" in shown
    assert "[/b] [red]x[/red] :smile:" in shown


@pytest.fixture(scope="module")
def evil_run(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose labels, texts and file names are as bad as can be."""
    folder = tmp_path_factory.mktemp("evil")
    data = folder / "$(touch ran) `x` <b> ''' [a](b).jsonl"
    rows = [
        {"text": f"{row['text']} {EVIL[index % len(EVIL)]}", "label": EVIL[index % len(EVIL)]}
        for index, row in enumerate(tiny.rows(240))
    ]
    tiny.save_jsonl(data, rows)
    content = tiny.recipe(models("bert"), data, training={"max_steps": 2})
    workflow.run(recipes.parse(content), folder / "run")
    return folder / "run", data


def test_row_58_the_cards_metadata_is_valid_yaml(evil_run: tuple[Path, Path]) -> None:
    run, data = evil_run
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    _, header, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    found = yaml.safe_load(header)
    assert found["model-index"][0]["results"][0]["dataset"]["name"] == data.name
    assert set(found) == {"library_name", "pipeline_tag", "tags", "model-index"}
    assert body.count("\n```") == 2  # the one block of code, and no other
    assert re.findall(r"^#+ .*$", body, flags=re.MULTILINE) == ["# tiny", "## Load it"]


def test_row_58_the_cards_code_means_the_labels_and_runs_nothing(evil_run: tuple[Path, Path]) -> None:
    card = (evil_run[0] / "adapter" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
    tree = ast.parse(code)
    called = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert called == {"dict", "from_pretrained", "eval"}
    (labels,) = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "labels"
    ]
    assert isinstance(labels.value, ast.Call)
    assert set(ast.literal_eval(labels.value.keywords[0].value).values()) == set(EVIL)


def test_row_58_the_card_holds_no_html(evil_run: tuple[Path, Path]) -> None:
    card = (evil_run[0] / "adapter" / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```python\n.*?^```$", "", card.split("---\n", 2)[2], flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)(<|`|\[|!\[)", text)


def test_row_58_the_report_shows_them_as_text(evil_run: tuple[Path, Path]) -> None:
    page = (evil_run[0] / "report.html").read_text(encoding="utf-8")
    seen: list[tuple[str, dict[str, Any]]] = []
    shown: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, dict(attrs)))

        def handle_data(self, data: str) -> None:
            shown.append(data)

    Parser().feed(page)
    assert sum(tag == "script" for tag, _ in seen) == 1
    assert not [tag for tag, _ in seen if tag in {"img", "b", "iframe"}]
    assert not [attributes for _, attributes in seen if any(name.startswith("on") for name in attributes)]
    assert "{{ 7*7 }}" in "".join(shown)


def test_row_58_the_resolved_recipe_means_the_same(evil_run: tuple[Path, Path]) -> None:
    run, data = evil_run
    assert recipes.load(run / "recipe.toml").data.train_file == str(data.resolve())
    assert not [path for path in run.parent.rglob("*") if path.name == "ran"]
