"""What every registered name keeps to, by name: whoever registers another is held to the same without a new test.

Tests of a task run on the small data that ``tasks_data`` has for it. The package of a third party is held to them too,
in a process of its own, where it is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import serving
import stock
import third_party
import tiny
import torch
from conftest import ROOT
from tasks_data import SAMPLES, Sample

from featherweight import recipe as recipes
from featherweight import registry, workflow
from featherweight.answers import Answer, statistics_of
from featherweight.engine.running.batches import targets_of
from featherweight.engine.training.optimizers import Optimizer
from featherweight.errors import ConfigError, FeatherweightError, ModelError
from featherweight.evidence.baselines import Baseline, Probe, applies
from featherweight.evidence.data.checks import Check, checks_of
from featherweight.evidence.exhibits import Exhibit, exhibits_of
from featherweight.export import Format as Export
from featherweight.inference.predictor import load_predictor
from featherweight.methods import Method
from featherweight.methods.peft import tuners
from featherweight.records.cutting import Cutting
from featherweight.records.outputs import Outputs
from featherweight.records.rows import UNSEEN, Column, Encoding, Examples, Ragged, equal, numbers_of
from featherweight.registry import (
    ANSWERS,
    BASELINES,
    CHECKS,
    EXHIBITS,
    EXPORTS,
    FORMATS,
    METHODS,
    OBSERVERS,
    OPTIMIZERS,
    STATISTICS,
    TASKS,
    Registry,
)
from featherweight.runs.directory import RunDirectory
from featherweight.runs.predictions import Predictions
from featherweight.sources import data
from featherweight.sources.formats import Format
from featherweight.statistics.additive import Statistic
from featherweight.tasks import Task
from featherweight.tracking import Observer

Models = Callable[[str], Path]

ROWS = 96
ASKED_FOR = {"decision-threshold", "written-answers"}  # exhibits of what nobody has who does not ask for it
LACKING = {"seq2seq-lm": {"forgetting"}}  # and those of what a task has not
SHAPES: dict[str, tuple[Registry, type[Any] | None]] = {
    "TASKS": (TASKS, Task),
    "METHODS": (METHODS, Method),
    "OPTIMIZERS": (OPTIMIZERS, Optimizer),
    "ANSWERS": (ANSWERS, Answer),
    "FORMATS": (FORMATS, Format),
    "STATISTICS": (STATISTICS, None),
    "BASELINES": (BASELINES, Baseline),
    "CHECKS": (CHECKS, Check),
    "EXHIBITS": (EXHIBITS, Exhibit),
    "EXPORTS": (EXPORTS, Export),
    "OBSERVERS": (OBSERVERS, Observer),
}
ENTRIES = [(table, name) for table, (names, _) in SHAPES.items() for name in names]
KNOWN = [one for one in SAMPLES if one.task in TASKS]


def members(protocol: type[Any]) -> set[str]:
    """What a protocol wants of a class: all but what only an instance has."""
    named = {*getattr(protocol, "__annotations__", {}), *vars(protocol)}
    of_instances = {name for name, one in vars(protocol).items() if isinstance(one, property)}
    return {name for name in named - of_instances if not name.startswith("_")}


def missing(component: Any, protocol: type[Any]) -> list[str]:
    return sorted(name for name in members(protocol) if not hasattr(component, name))


# Every registry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_an_entry_is_what_its_table_says(table: str, name: str) -> None:
    names, protocol = SHAPES[table]
    component = names[name]
    if protocol is None:
        assert isinstance(component, Statistic)
        assert component.answers, "a third party's statistic says for which kinds of answer it is"
        return
    assert missing(component, protocol) == []
    if table in {"TASKS", "ANSWERS"}:
        assert component.name == name


def test_a_member_that_is_missing_is_seen() -> None:
    """Negative control."""
    assert missing(object, Exhibit) == ["brief", "find", "sentence", "show", "title"]
    assert {"name", "statistics", "losses", "of_table"} <= members(Answer)


def test_every_table_is_held_to_its_shape() -> None:
    tables = {name for name, one in vars(registry).items() if isinstance(one, Registry)}
    assert tables == set(SHAPES), "give the new table its protocol in SHAPES"


def test_every_task_and_kind_of_answer_has_data_to_be_tried_on() -> None:
    lacking = set(TASKS) - {one.task for one in SAMPLES} | set(ANSWERS) - {one.kind for one in SAMPLES}
    assert not lacking, f"add rows for {', '.join(sorted(lacking))} to SAMPLES in tests/tasks_data.py"


@pytest.mark.parametrize("name", ANSWERS)
def test_a_kind_of_answer_names_what_is_there(name: str) -> None:
    kind = ANSWERS[name]
    for names, table in ((kind.baselines, BASELINES), (kind.checks, CHECKS), (kind.exhibits, EXHIBITS)):
        assert set(names) <= set(table)
        assert len(set(names)) == len(names)
    assert not kind.probe or kind.probe in kind.baselines
    assert not kind.probe or missing(BASELINES[kind.probe], Probe) == []
    assert kind.knows_nothing[0] in kind.baselines
    named = [one.name for one in statistics_of(kind)]
    titles = [one.title for one in statistics_of(kind)]
    assert len(set(named)) == len(named) > 0
    called = ["loss", *named, *(alias for one in statistics_of(kind) for alias in one.aliases)]
    assert len(set(called)) == len(called), "a metric's name means one statistic"
    assert len(set(titles)) == len(titles)
    assert kind.statistics[0].in_evaluations, "the headline is in every evaluation"
    assert kind.best in {"eval_loss", *(f"eval_{one.name}" for one in kind.statistics if one.in_evaluations)}
    assert {one.title for one in exhibits_of(kind)} >= {EXHIBITS[one].title for one in kind.exhibits}
    assert len(checks_of(kind)) >= len(kind.checks)


# Every kind of answer, on answers drawn at random -----------------------------------------------------------------------


class Tried:
    """A task on its small data, with outputs of a head that were drawn at random for every row."""

    def __init__(self, sample: Sample, folder: Path) -> None:
        self.task, examples, cutting = _prepared(sample, folder)
        self.kind: Answer = self.task.answer
        self.examples: Examples = examples["train"]
        self.truth = self.examples.truth
        self.encoding: Encoding = self.task.encode(
            self.examples, tiny.tokenizer(sample.model.removesuffix("-lm")), cutting
        )
        self.outputs = self.drawn(0)
        self.answers = self.kind.of_outputs(self.outputs, {})

    def drawn(self, seed: int) -> Column:
        reads, ends = self.encoding.reads, self.encoding.ends
        count = len(self.encoding) if ends is None else int(ends[-1])
        values = np.random.default_rng(seed).normal(0, 2, (count, self.kind.width)).astype(np.float32)
        if reads is None or ends is None:
            return values
        if not self.encoding.compares:
            values[reads.values == UNSEEN] = np.nan
        return Ragged(values, ends)


def _prepared(sample: Sample, folder: Path) -> tuple[Task, Mapping[str, Examples], Cutting]:
    section = recipes.load_data_section({"train_file": str(sample.save(folder, ROWS)), **sample.data}, sample.task)
    section = data.found(section)
    task, examples = TASKS[sample.task].prepare(data.load(section), section, 0)
    return task, examples, section.cutting(section.max_length or 16)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sample], Tried]:
    made: dict[str, Tried] = {}

    def get(sample: Sample) -> Tried:
        key = sample.name
        if key not in made:
            made[key] = Tried(sample, tmp_path_factory.mktemp("tried"))
        return made[key]

    return get


Try = Callable[[Sample], Tried]


def of_sample(function: Any) -> Any:
    return pytest.mark.parametrize("sample", KNOWN, ids=lambda one: one.name)(function)


def same(one: Column, other: Column) -> bool:
    return equal(one, other) or np.array_equal(numbers_of(one), numbers_of(other), equal_nan=True)


@of_sample
def test_answers_and_truth_come_back_from_parquet(sample: Sample, tried: Try, tmp_path: Path) -> None:
    one = tried(sample)
    assert one.kind.name == sample.kind
    Predictions(one.examples.ids, one.kind, one.answers, one.truth).write(tmp_path / "p.parquet")
    read = Predictions.read(tmp_path / "p.parquet")
    assert read.kind.facts() == one.kind.facts()
    assert equal(read.truth, one.truth)
    assert set(read.answers.columns) == set(one.answers.columns)
    assert all(same(read.answers[name], column) for name, column in one.answers.columns.items())
    with pytest.raises((KeyError, TypeError, ValueError)):
        one.kind.of_table(one.kind.table(one.answers, one.truth).replace_schema_metadata(None).select([0]))


@of_sample
def test_a_kind_is_like_itself_and_unlike_others(sample: Sample, tried: Try) -> None:
    one = tried(sample)
    answers, truth = one.kind.taken_from(one.kind, one.answers, one.truth) or (None, None)
    assert answers is not None
    assert equal(truth, one.truth)
    assert all(same(answers[name], column) for name, column in one.answers.columns.items())
    itself = one.kind.likeness(one.answers, one.answers)
    assert (itself.agreement, itself.largest_difference) == (1.0, 0.0)
    assert itself.differences.shape == (len(one.answers),)
    other = one.kind.likeness(one.answers, one.kind.of_outputs(one.drawn(1), {}))
    assert other.agreement < 1
    assert other.largest_difference > 100 * other.tolerance


def largest_gap_of_losses(one: Tried) -> float:
    """Between the task's loss in torch and the kind's in numpy, over single rows."""
    gaps = []
    for row in range(len(one.encoding)):
        rows = np.asarray([row])
        outputs = one.outputs[rows]
        values = torch.from_numpy(numbers_of(outputs))
        seen = values.isfinite().all(dim=1)
        ends = torch.from_numpy(outputs.offsets) if isinstance(outputs, Ragged) else torch.arange(2)
        whole = bool(seen.all())
        given = Outputs(values.nan_to_num(), ends, None if whole else seen)
        theirs = float(one.task.loss(given, targets_of(one.encoding, rows, torch.device("cpu"))))
        ours, items = one.kind.losses(outputs, one.truth[rows])
        assert items == one.encoding.items(rows)
        gaps.append(abs(ours - theirs) / max(1.0, abs(theirs)))
    return max(gaps)


@of_sample
def test_the_loss_without_torch_is_that_of_training(
    sample: Sample, tried: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tried(sample)
    assert largest_gap_of_losses(one) < 1e-6
    original = type(one.kind).losses
    monkeypatch.setattr(type(one.kind), "losses", lambda *asked: (original(*asked)[0] * 1.001, original(*asked)[1]))
    assert largest_gap_of_losses(one) > 1e-6, "negative control"


@of_sample
def test_replies_keep_to_their_schema(sample: Sample, tried: Try) -> None:
    one = tried(sample)
    options = one.kind.options("it", dict(one.kind.unfitted), {})
    replies = list(one.kind.reply(one.answers, list(one.examples.questions()), options))
    assert len(replies) == len(one.examples)
    for reply in replies:
        require_reply(one.kind, json.loads(json.dumps(reply)))
        assert isinstance(one.kind.line(reply), str)
    for reply in in_files(one, replies):
        require_reply(one.kind, json.loads(json.dumps(reply)))
        assert list(one.kind.cells(reply, True)) == [field.name for field in one.kind.fields(options)]
        assert set(one.kind.cells(reply, False)) <= {
            key for cells in one.kind.possible_cells(False, options) for key in cells
        }
    with pytest.raises(jsonschema.ValidationError):
        require_reply(one.kind, dict.fromkeys(replies[0]))


def in_files(one: Tried, replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is written into files: of text what the model writes, whatever else it is asked elsewhere."""
    if not one.task.scores_tokens:
        return replies
    return list(one.kind.reply(one.kind.of_written(["a film", ""], [2, 1], [False, True]), (), {}))  # type: ignore[attr-defined]


def require_reply(kind: Answer | type[Answer], reply: Mapping[str, Any]) -> None:
    """Raises ValidationError where a reply is not what the kind's schema says, or lacks what it must have."""
    jsonschema.validate(reply, dict(kind.reply_schema))
    assert set(kind.reply_schema["required"]) <= set(reply)
    assert set(reply) <= {*kind.reply_schema["properties"], "truncated"}


@of_sample
def test_a_kind_describes_its_truth(sample: Sample, tried: Try) -> None:
    one, rows = tried(sample), len(tried(sample).examples)
    strata, names = one.kind.strata(one.truth)
    assert strata.shape == (rows,)
    assert strata.dtype.kind == "i"
    assert 0 <= strata.min() <= strata.max() < len(names)
    for (by, value), chosen in one.kind.slices(one.truth):
        assert by
        assert value
        assert (chosen.dtype, chosen.shape) == (np.dtype(bool), (rows,))
        assert chosen.any()
    described = one.kind.describe(one.truth)
    assert described
    assert all(one.kind.described.form.format(figure) for figure in described.values())
    if one.kind.described.shares:
        assert sum(described.values()) == pytest.approx(1)
    assert all(isinstance(one.kind.said(one.truth, row), str) for row in range(rows))
    assert np.isfinite(one.kind.uninformed_loss(one.truth))
    assert all(isinstance(line, str) for line in one.kind.cautions("validation", one.answers, one.truth))
    details = one.kind.details(one.answers, one.truth)
    json.dumps(details)
    assert isinstance(one.kind.briefs(details), list)
    title, names = one.kind.introduction()
    assert title
    assert names


@of_sample
def test_what_is_fitted_travels_and_is_read_back(sample: Sample, tried: Try) -> None:
    one = tried(sample)
    first, second = np.arange(0, len(one.examples), 2), np.arange(1, len(one.examples), 2)
    fitted = one.kind.fit(
        (one.answers.select(first), one.truth[first]), (one.answers.select(second), one.truth[second])
    )
    assert set(fitted) >= set(one.kind.unfitted)
    none = np.arange(0)
    of_none = one.kind.fit((one.answers.select(none), one.truth[none]), (one.answers, one.truth))
    for values in (fitted, of_none, one.kind.unfitted):
        facts = json.loads(json.dumps({**one.kind.facts(), **{key: values[key] for key in one.kind.unfitted}}))
        assert set(facts) <= set(one.kind.known), "featherweight.json has no key of the kind's that is not checked"
        assert [key for key, (is_one, _) in one.kind.known.items() if key in facts and not is_one(facts[key])] == []
        assert one.kind.of_facts(facts).facts() == one.kind.facts()
    assert TASKS[sample.task].of_answer(one.kind).answer.facts() == one.kind.facts()


@of_sample
def test_statistics_are_functions_of_sums_over_rows(sample: Sample, tried: Try) -> None:
    one = tried(sample)
    rows = len(one.examples)
    for statistic in statistics_of(one.kind):
        found = statistic.of(one.answers, one.truth)
        assert found.rows == rows
        assert np.isfinite(found.of_all_rows), statistic.name
        assert found.select(np.arange(rows)).of_all_rows == pytest.approx(found.of_all_rows, abs=1e-9), statistic.name
        assert found.select(np.arange(rows) < 40).rows == 40
        summed = np.asarray(found.features.sum(axis=0)).reshape(-1)
        np.testing.assert_allclose(summed, found.total, rtol=1e-9, atol=1e-9, err_msg=statistic.name)


# Every task by every method, whole runs -----------------------------------------------------------------------------


TRAINING = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 4, "learning_rate": 5e-3}
_TIMES = ("runtime", "per_second", "cost", "seconds", "memory", "saves", "reliability", "energy")


def content_of(sample: Sample, method: str, models: Models, folder: Path) -> dict[str, Any]:
    rows = sample.save(folder, ROWS)
    content = tiny.recipe(models(sample.model), rows, data=sample.data, method={"name": method}, training=TRAINING)
    return {**content, "task": sample.task, "name": sample.name}


@pytest.fixture(scope="module")
def runs(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sample, str], Path]:
    """A finished run of a task by a method, made once; its data is beside it."""
    made: dict[str, Path] = {}

    def get(sample: Sample, method: str) -> Path:
        key = f"{sample.name} {method}"
        if key not in made:
            folder = tmp_path_factory.mktemp("run")
            made[key] = folder / sample.name
            workflow.run(recipes.parse(content_of(sample, method, models, folder)), made[key])
        return made[key]

    return get


Runs = Callable[[Sample, str], Path]


def has_nothing_to_train(sample: Sample, method: str) -> bool:
    return bool(METHODS[method].trains_head_alone and TASKS[sample.task].scores_tokens)


@pytest.mark.parametrize(
    "sample", [one for one in KNOWN if has_nothing_to_train(one, "linear-probe")], ids=lambda one: one.name
)
def test_a_method_that_trains_the_head_alone_is_refused_where_none_is_fresh(
    sample: Sample, models: Models, tmp_path: Path
) -> None:
    content = content_of(sample, "linear-probe", models, tmp_path)
    with pytest.raises(ConfigError, match=r"method\.name: linear-probe trains a fresh head"):
        workflow.run(recipes.parse(content), tmp_path / "run")


def of_methods(function: Any) -> Any:
    """Each of them; but for the usual one they wait for the slow tests, and forms of texts, of which no method knows,
    are tried with that one alone. PEFT's other tuners are one class with other options, and have ``test_tuners.py``."""
    usual = recipes.DEFAULT_METHOD
    beside = {name for name, one in METHODS.items() if one.__module__ == tuners.__name__}
    tried = [
        pytest.param(sample, method, id=f"{method}-{sample.name}", marks=[] if method == usual else pytest.mark.slow)
        for method in METHODS
        if method not in beside
        for sample in KNOWN
        if (method == usual or not sample.form) and not has_nothing_to_train(sample, method)
    ]
    return pytest.mark.parametrize(("sample", "method"), tried)(function)


def untimed(value: Any) -> Any:
    """Figures without what a clock, the machine's memory or how often a run was begun says."""
    if isinstance(value, dict):
        return {key: untimed(one) for key, one in value.items() if not any(time in key for time in _TIMES)}
    return [untimed(one) for one in value] if isinstance(value, list) else value


def artefact_of(run: Path, method: str) -> Path:
    return run / str(METHODS[method].artefact)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "README.md"}


class Killed(BaseException):
    """As sudden as a signal that can't be caught: nobody saves anything first."""


def killed_and_resumed(content: dict[str, Any], folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from featherweight.engine.training.train import Trainer

    def kill(trainer: Any) -> None:
        if trainer.progress.step == step:
            raise Killed

    original = Trainer._train_step

    def train_step(self: Any) -> Any:
        kill(self)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", train_step)
        with pytest.raises(Killed):
            workflow.run(recipes.parse(content), folder)
    assert not (folder / "metrics.json").exists()
    workflow.run(recipes.parse(content), folder, resume=True)


@pytest.mark.slow
@of_methods
def test_a_killed_run_resumes_to_the_same_bytes_and_figures(
    sample: Sample, method: str, runs: Runs, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs(sample, method)
    killed_and_resumed(content_of(sample, method, models, whole.parent), tmp_path / "out", 6, monkeypatch)
    assert bytes_of(artefact_of(whole, method)) == bytes_of(artefact_of(tmp_path / "out", method))
    one, other = (untimed(RunDirectory(folder).read_metrics()) for folder in (whole, tmp_path / "out"))
    assert one == other
    answers = [RunDirectory(folder).read_predictions("tuned", "validation") for folder in (whole, tmp_path / "out")]
    assert all(same(answers[0].answers[name], column) for name, column in answers[1].answers.columns.items())


@of_methods
def test_evaluating_and_comparing_a_run_give_its_own_figures(sample: Sample, method: str, runs: Runs) -> None:
    run = runs(sample, method)
    metrics = RunDirectory(run).read_metrics()
    found = workflow.evaluate(str(run))
    headline = f"eval_{metrics['comparison']['metric']}"
    assert {headline, "eval_loss"} <= set(found)
    for name in [
        key for key in metrics["tuned"] if key.startswith("eval_") and not any(time in key for time in _TIMES)
    ]:
        assert found[name] == pytest.approx(metrics["tuned"][name], abs=1e-5), name
    (alone,) = workflow.compare([str(run)])["comparisons"]
    assert alone["difference"] == metrics["comparison"]["difference"]
    assert alone["p_value"] == metrics["comparison"]["p_value"]
    (itself,) = workflow.compare([str(run), str(run)])["comparisons"]
    assert (itself["difference"], itself["p_value"], itself["verdict"]) == (0.0, 1.0, "no-difference")


def require_close(one: Any, other: Any, within: float = 1e-4) -> None:
    """Two replies, numbers within a tolerance."""
    if isinstance(one, float):
        assert one == pytest.approx(other, abs=within * max(1.0, abs(one)))
    elif isinstance(one, dict):
        assert set(one) == set(other)
        for key, value in one.items():
            require_close(value, other[key], within)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for value, its in zip(one, other, strict=True):
            require_close(value, its, within)
    else:
        assert one == other


def saved_replies(run: Path, sample: Sample, names: str = "tuned") -> tuple[list[Any], list[dict[str, Any]]]:
    """What a predictor is asked of the validation rows, and the replies that the saved predictions make."""
    kept = RunDirectory(run).read_predictions(names, "validation")
    rows = sample.rows(ROWS)
    asked = [sample.asked(rows[number]) for number in kept.ids]
    questions = load_predictor(str(run)).task.questions(asked)
    return asked, list(kept.kind.reply(kept.answers, questions, {}))


@of_methods
def test_a_text_alone_gets_the_prediction_that_was_saved(sample: Sample, method: str, runs: Runs) -> None:
    run = runs(sample, method)
    asked, expected = saved_replies(run, sample)
    predictor = load_predictor(str(run))
    for given, reply in zip(asked[:8], expected[:8], strict=True):
        (found,) = predictor.predict([given])
        require_close(found, reply)
    _, untuned = saved_replies(run, sample, "base")
    with pytest.raises(AssertionError):
        require_close(expected, untuned)  # negative control: the untuned model says something else


@of_methods
def test_the_report_holds_every_exhibit(sample: Sample, method: str, runs: Runs, tried: Try) -> None:
    run = runs(sample, method)
    html = (run / "report.html").read_text(encoding="utf-8")
    metrics = RunDirectory(run).read_metrics()
    assert metrics["answer"] == sample.kind
    shown = [one for one in exhibits_of(ANSWERS[sample.kind]) if one.show(metrics)]
    assert shown
    for one in shown:
        assert f">{one.title}</h2>" in html
    absent = ASKED_FOR | LACKING.get(sample.task, set())
    own = {EXHIBITS[name].title for name in ANSWERS[sample.kind].exhibits if name not in absent}
    assert own <= {one.title for one in shown}
    for rung in metrics["baselines"]:
        assert rung in html
    assert metrics["baselines_left_out"] == {}
    named = BASELINES.for_kind(ANSWERS[sample.kind].baselines, sample.kind)
    one = tried(sample)
    assert list(metrics["baselines"]) == [name for name in named if applies(name, one.examples, one.kind)]


def of_tokens(logits: Any, ids: Any) -> Any:
    """At each place the log-probability of a token, and whether it is the likeliest."""
    logs, wanted = torch.from_numpy(logits).double().log_softmax(dim=1), torch.tensor(list(ids))
    likeliest = logs.argmax(dim=1) == wanted
    return torch.stack([logs.gather(1, wanted[:, None])[:, 0], likeliest.double()], dim=1).float().numpy()


def of_compared(scores: list[Any], row: Any) -> Any:
    """Of each sequence its log-probability and its length."""
    reads = [list(one.reads) for one in row.windows()]
    return np.stack([[one[places, 0].sum(), len(places)] for one, places in zip(scores, reads, strict=True)])


@of_methods
def test_stock_libraries_answer_as_the_run_by_its_card(sample: Sample, method: str, runs: Runs) -> None:
    run = runs(sample, method)
    model, _ = stock.by_card(artefact_of(run, method))
    predictor = load_predictor(str(run))
    asked, _ = saved_replies(run, sample)
    questions = predictor.task.questions(asked[:6])
    found = []
    for row in predictor.backend.tokenise(questions):
        reply = {} if row.reply is None else {"labels": torch.tensor([list(row.reply)])}
        with torch.no_grad():
            windows = [
                model(input_ids=torch.tensor([list(one.ids)]), **reply).logits[0].numpy() for one in row.windows()
            ]
        if predictor.task.scores_tokens:
            windows = [
                of_tokens(logits, [*one.ids[1:], 0] if row.reply is None else row.reply)
                for logits, one in zip(windows, row.windows(), strict=True)
            ]
        if row.ends and row.reads is not None:
            found.append(of_compared(windows, row))
        else:
            found.append(np.mean(windows, axis=0) if row.reads is None else windows[0][list(row.reads)])
    ends = np.cumsum([0, *map(len, found)])
    ragged = predictor.task.reads_tokens
    theirs = predictor.kind.of_outputs(Ragged(np.concatenate(found), ends) if ragged else np.stack(found), {})
    assert predictor.kind.likeness(theirs, predictor.answers(questions)).largest_difference < 1e-4


# Every task by every export -------------------------------------------------------------------------------------------


@of_sample
@pytest.mark.parametrize("format", EXPORTS)
def test_an_export_answers_as_its_run_or_says_why_not(sample: Sample, format: str, runs: Runs, tmp_path: Path) -> None:
    run = runs(sample, "lora")
    try:
        found = workflow.export(run, format, tmp_path / "out", min_agreement=0.5, margin=0.5)
    except FeatherweightError as error:
        assert len(str(error).splitlines()) == 1
        assert not (tmp_path / "out").exists()
        refused = TASKS[sample.task].scores_tokens and "writes token by token" in str(error)
        assert refused or not EXPORTS[format].is_exact, f"a tiny encoder can be had as {format}: {error}"
        return
    assert found["format"] == format
    asked, expected = saved_replies(run, sample)
    exported = load_predictor(tmp_path / "out")
    assert exported.kind.facts() == load_predictor(run).kind.facts()
    if EXPORTS[format].is_exact:
        require_close(exported.predict(asked[:4]), expected[:4])
    assert workflow.evaluate(str(tmp_path / "out"), _section(run))["n"] == ROWS
    facts = json.loads((tmp_path / "out" / "featherweight.json").read_text())
    others = {key for name in ANSWERS for key in ANSWERS[name].known} - set(exported.kind.known)
    assert not others & set(facts), "a fact of another kind of answer"


def _section(run: Path) -> Any:
    return recipes.load(run / "recipe.toml").data


# Every task behind one server --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_server_answers_for_every_task(runs: Runs) -> None:
    folders = {runs(sample, "lora"): sample for sample in KNOWN}
    with serving.running(*folders) as server:
        for run, sample in folders.items():
            asked, _ = saved_replies(run, sample)
            texts = [" ".join(one) if isinstance(one, list) else one for one in asked[:5]]
            answer = server.predict(texts, run.name)
            assert answer.status == 200, answer.body
            expected = load_predictor(str(run)).predict(texts)
            for found, reply in zip(answer.json["predictions"], expected, strict=True):
                require_reply(ANSWERS[sample.kind], found)
                require_close({key: one for key, one in found.items() if key != "truncated"}, reply)


# A third party ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the third party's package installed."""
    site = third_party.install(tmp_path_factory.mktemp("site"))
    path = [str(ROOT / "src"), str(site), str(ROOT / "tests")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def pytest_there(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_third_partys_parts_join_those_that_are_there(installed: dict[str, str]) -> None:
    ended = pytest_there(installed, "tests/package/installed.py")
    assert ended.returncode == 0, ended.stdout
    assert "5 passed" in ended.stdout
    assert "skipped" not in ended.stdout


@pytest.mark.slow
def test_a_third_partys_task_keeps_every_contract(installed: dict[str, str]) -> None:
    """Of a kind of answer of its own, from one module, with nothing of ours edited."""
    ended = pytest_there(installed, "tests/test_contracts.py", "-k", "ordinal or server")
    assert ended.returncode == 0, ended.stdout
    assert int(ended.stdout.split(" passed")[0].split()[-1]) > 25, ended.stdout
    assert "skipped" not in ended.stdout


def test_without_the_package_its_names_are_not_known() -> None:
    """Negative control: nothing of it stands in our own tables."""
    for table, name in ((TASKS, "ordinal-regression"), (ANSWERS, "ordinal"), (EXHIBITS, "certainty")):
        assert name not in table._builtin


def test_facts_without_what_the_answers_need_are_refused(runs: Runs, tmp_path: Path) -> None:
    """What the model answers is never guessed from its head where its file names another kind of answer."""
    import shutil

    sample = next(one for one in KNOWN if one.kind == "number")
    shutil.copytree(artefact_of(runs(sample, "full"), "full"), tmp_path / "model")
    facts = tmp_path / "model" / "featherweight.json"
    content = json.loads(facts.read_text())
    facts.write_text(json.dumps({key: one for key, one in content.items() if key != "scale"}))
    with pytest.raises(ModelError, match=r"featherweight\.json: lacks 'scale'"):
        load_predictor(tmp_path / "model")


@of_sample
def test_inspecting_an_adapter_shows_the_facts_of_its_kind(sample: Sample, runs: Runs) -> None:
    found = workflow.inspect_adapter(str(runs(sample, "lora")))
    kind = load_predictor(str(runs(sample, "lora"))).kind
    assert found["task"] == sample.task
    assert {key: found[key] for key in kind.facts()} == kind.facts()
    others = {key for name in ANSWERS for key in ANSWERS[name].known} - set(kind.known)
    assert not others & set(found)


def excerpts(page: str, language: str) -> list[str]:
    return [block.partition("```")[0] for block in page.split(f"```{language}\n")[1:]]


def test_what_the_docs_show_of_a_package_stands_in_the_one_that_is_tested() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    module = (third_party.SOURCE / "ranked.py").read_text(encoding="utf-8")
    points = (third_party.SOURCE / "entry_points.txt").read_text(encoding="utf-8")
    shown = excerpts(page, "python")
    assert len(shown) >= 5
    for code in shown:
        assert code in module
    (toml,) = excerpts(page, "toml")
    written = toml.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
    for line in filter(None, written.splitlines()):
        assert line in points.splitlines()
    for names, _ in SHAPES.values():
        assert f"`{names.group}`" in page
