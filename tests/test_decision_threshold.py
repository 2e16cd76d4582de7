"""A decision threshold for one of two labels: chosen on some rows, proven on others, carried to every answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from sklearn.metrics import f1_score, precision_score, recall_score

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers import decisions
from featherweight.answers.label import Label
from featherweight.answers.probabilities import apply_temperature
from featherweight.errors import ConfigError
from featherweight.evidence.exhibits import fit_on_half
from featherweight.evidence.fitting import halves
from featherweight.inference.predictor import load_predictor
from featherweight.recipe.sections import EvidenceSection
from featherweight.records.answers import Answers
from featherweight.runs.directory import RunDirectory

Models = Callable[[str], Path]
COSTS = {"false_positive": 1, "false_negative": 5}
AIMS = ["f1", {"precision": 0.8}, {"recall": 0.9}, {"cost": COSTS}]


def asked(wanted: Any, pos_label: str | None = "pos") -> EvidenceSection:
    return EvidenceSection.model_validate({"decision_threshold": wanted, "pos_label": pos_label})


def drawn(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, some of them equal, and which rows are positive."""
    draw = np.random.default_rng(seed)
    positive = draw.random(rows) < 0.3
    return np.round(np.clip(draw.normal(0.35 + 0.25 * positive, 0.2), 0, 1), 2).astype(np.float32), positive


def cost(answered: np.ndarray, positive: np.ndarray) -> float:
    return float((answered & ~positive).sum() + 5 * (positive & ~answered).sum()) / len(positive)


class TestChoosing:
    @pytest.mark.parametrize("seed", range(12))
    def test_no_other_threshold_serves_better(self, seed: int) -> None:
        probabilities, positive = drawn(seed)
        every = [probabilities >= one for one in [*np.unique(probabilities), 2.0]]

        def chosen(wanted: Any) -> np.ndarray | None:
            aim = decisions.aim_of(asked(wanted))
            assert aim is not None
            found = decisions.find(aim, probabilities, positive)
            return None if found is None else probabilities >= found

        f1 = chosen("f1")
        assert f1 is not None
        assert f1_score(positive, f1) == pytest.approx(max(f1_score(positive, one) for one in every))
        least = chosen({"cost": COSTS})
        assert least is not None
        assert cost(least, positive) == pytest.approx(min(cost(one, positive) for one in every))
        precise = [one for one in every if one.any() and precision_score(positive, one) >= 0.8]
        found = chosen({"precision": 0.8})
        if precise:
            assert found is not None
            assert precision_score(positive, found) >= 0.8
            assert recall_score(positive, found) == max(recall_score(positive, one) for one in precise)
        else:
            assert found is None
        complete = [one for one in every if recall_score(positive, one) >= 0.9]
        found = chosen({"recall": 0.9})
        assert found is not None
        assert recall_score(positive, found) >= 0.9
        assert precision_score(positive, found) == max(precision_score(positive, one) for one in complete)

    def test_what_no_threshold_gives_has_none(self) -> None:
        upside_down = np.linspace(0, 1, 40), np.arange(40) < 10
        assert decisions.find(("precision", 0.5), *upside_down) is None
        assert decisions.find(("recall", 1.0), *upside_down) is not None
        assert decisions.find(("recall", 0.5), np.linspace(0, 1, 4), np.zeros(4, dtype=bool)) is None
        assert decisions.find(("f1", None), np.empty(0), np.empty(0, dtype=bool)) is None

    def test_where_false_answers_are_dear_none_may_be_best(self) -> None:
        probabilities = np.asarray([0.2, 0.9, 1.0])
        dear = {"false_positive": 100.0, "false_negative": 1.0}
        found = decisions.find(("cost", dear), probabilities, np.asarray([True, False, False]))
        assert found is not None
        assert not (probabilities >= found).any()

    def test_rows_that_are_reported_on_have_no_say(self) -> None:
        probabilities, positive = drawn(3, 200)
        both = np.stack([1 - probabilities, probabilities], axis=1)
        truth = positive.astype(np.int64)
        kind, wanted = Label(["neg", "pos"]), asked("f1")
        found = fit_on_half(kind, Answers({"probabilities": both}), truth, 7, None, wanted)
        _, others = halves(200, 7)
        truth[others] = 1 - truth[others]
        turned = fit_on_half(kind, Answers({"probabilities": both}), truth, 7, None, wanted)
        assert turned["decision_threshold"] == found["decision_threshold"]
        assert turned["decision"]["figures"]["f1"]["tuned"] != found["decision"]["figures"]["f1"]["tuned"]

    def test_the_order_of_the_names_does_not_matter(self) -> None:
        probabilities, positive = drawn(5, 200)
        probabilities += np.float32(0.003)  # 0.5 is the one or the other by the order alone
        both = np.stack([1 - probabilities, probabilities], axis=1)
        one = fit_on_half(Label(["neg", "pos"]), Answers({"probabilities": both}), positive.astype(int), 0, None,
                          asked({"recall": 0.9}))  # fmt: skip
        other = fit_on_half(Label(["pos", "neg"]), Answers({"probabilities": both[:, ::-1]}), 1 - positive.astype(int),
                            0, None, asked({"recall": 0.9}))  # fmt: skip
        assert other["decision"]["figures"] == one["decision"]["figures"]
        assert other["decision_threshold"]["threshold"] == pytest.approx(one["decision_threshold"]["threshold"])

    def test_nothing_that_is_not_asked_for_is_fitted(self) -> None:
        probabilities, positive = drawn(5)
        both = Answers({"probabilities": np.stack([1 - probabilities, probabilities], axis=1)})
        assert "decision" not in fit_on_half(Label("ab"), both, positive.astype(int), 0, None, EvidenceSection())


class TestAsking:
    @pytest.mark.parametrize("wanted", AIMS)
    def test_what_may_be_asked_is_written_and_read_back(self, wanted: Any, tmp_path: Path) -> None:
        content = {**tiny.recipe("m", "t.csv"), "evidence": {"decision_threshold": wanted, "pos_label": "pos"}}
        recipe = recipes.parse(content)
        (tmp_path / "r.toml").write_text(recipes.dump(recipe, {}, tmp_path), encoding="utf-8")
        assert recipes.load(tmp_path / "r.toml").evidence == recipe.evidence

    @pytest.mark.parametrize(
        "wanted",
        ["f2", 0.3, {}, {"precision": 0}, {"precision": 1.1}, {"precision": True}, {"recall": "0.9"}, {"f1": 1},
         {"precision": 0.9, "recall": 0.9}, {"cost": {"false_positive": 1}}, {"cost": {**COSTS, "more": 1}},
         {"cost": {"false_positive": 1, "false_negative": 0}}, {"cost": 3}, ["f1"]],
    )  # fmt: skip
    def test_anything_else_is_one_line(self, wanted: Any) -> None:
        with pytest.raises(ConfigError, match=r"evidence\.decision_threshold: \"f1\", \{precision = 0.9\}") as found:
            recipes.parse({**tiny.recipe("m", "t.csv"), "evidence": {"decision_threshold": wanted}})
        assert len(str(found.value).splitlines()) == 1

    def test_a_label_alone_asks_for_nothing(self) -> None:
        with pytest.raises(ConfigError, match="'pos_label' is the label that 'decision_threshold' is for"):
            recipes.parse({**tiny.recipe("m", "t.csv"), "evidence": {"pos_label": "pos"}})

    def test_other_answers_are_refused_before_the_work(self, models: Models, tmp_path: Path) -> None:
        three = [{**row, "label": "abc"[index % 3]} for index, row in enumerate(tiny.rows(60))]
        train = tiny.save_jsonl(tmp_path / "t.jsonl", three)
        content = {**tiny.recipe(models("bert"), train), "evidence": {"decision_threshold": "f1"}}
        with pytest.raises(
            ConfigError, match="is for one of two labels, and sequence-classification here has 3 labels"
        ):
            workflow.run(recipes.parse(content), tmp_path / "run")
        numbers = tiny.save_jsonl(tmp_path / "n.jsonl", [{**row, "label": 1.5 * len(row["text"])} for row in three])
        content = {**tiny.recipe(models("bert"), numbers), "evidence": {"decision_threshold": "f1"}}
        with pytest.raises(ConfigError, match="and regression here answers otherwise"):
            workflow.run(recipes.parse({**content, "task": "regression"}), tmp_path / "run")
        two = tiny.save_jsonl(tmp_path / "two.jsonl", tiny.rows(60))
        content = {
            **tiny.recipe(models("bert"), two),
            "evidence": {"decision_threshold": "f1", "pos_label": "positive"},
        }
        with pytest.raises(ConfigError, match="'positive' is no label of the data; known: neg, pos"):
            workflow.run(recipes.parse(content), tmp_path / "run")


def unequal(count: int) -> list[dict[str, Any]]:
    """Three rows in ten are positive, and a fifth of their words say the contrary."""
    draw = random.Random(2)
    rows = []
    for index in range(count):
        positive = index % 10 < 3
        telling = draw.choice(tiny.GOOD if positive == (draw.random() > 0.2) else tiny.BAD)
        words = [*draw.choices(tiny.PLAIN, k=4), telling]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": "yes" if positive else "no"})
    return rows


@pytest.fixture(scope="module")
def finished(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decision")
    train = tiny.save_jsonl(folder / "t.jsonl", unequal(400))
    content = tiny.recipe(
        models("bert"), train, data={"test_fraction": 0.25}, evidence={"decision_threshold": {"recall": 0.9}}
    )
    workflow.run(recipes.parse(content), folder / "run", progress=False)
    return folder / "run"


class TestRun:
    def test_the_figures_are_those_of_the_saved_predictions(self, finished: Path) -> None:
        run = RunDirectory(finished)
        metrics: dict[str, Any] = dict(run.read_metrics())
        found = metrics["decision"]["tuned"]
        assert (found["pos_label"], found["chosen_by"], found["wanted"]) == ("yes", "recall", 0.9)
        assert (found["fitted_rows"], found["reported_rows"]) == (
            metrics["rows"]["validation"],
            metrics["rows"]["test"],
        )
        temperature = metrics["calibration"]["tuned"]["temperature"]
        sides = {split: run.read_predictions("tuned", split) for split in ("validation", "test")}
        yes = sides["test"].kind.names.index("yes")  # type: ignore[attr-defined]
        shares = {
            split: apply_temperature(one.answers["probabilities"], temperature)[:, yes] for split, one in sides.items()
        }
        assert recall_score(sides["validation"].truth == yes, shares["validation"] >= found["threshold"]) >= 0.9
        truth = sides["test"].truth == yes
        scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
        for name, score in scores.items():
            one = found["figures"][name]
            at_threshold, even = (shares["test"] >= least for least in (found["threshold"], 0.5))
            assert one["tuned"] == pytest.approx(score(truth, at_threshold, zero_division=0))
            assert one["base"] == pytest.approx(score(truth, even, zero_division=0))
            assert one["interval"][0] <= one["tuned"] <= one["interval"][1]
        assert found["figures"]["accuracy"]["base"] == pytest.approx(metrics["tuned"]["eval_accuracy"])

    def test_it_is_shown_with_its_reason(self, finished: Path) -> None:
        html = (finished / "report.html").read_text(encoding="utf-8")
        assert ">Decision threshold</h2>" in html
        assert "the best precision at a recall of 0.9" in html
        assert "rows that did not choose the threshold" in (finished / "adapter" / "README.md").read_text("utf-8")
        assert 'pos_label = "yes" # the rarer label of train (30.0% of its rows)' in (
            finished / "recipe.toml"
        ).read_text(encoding="utf-8")

    def test_calibrated_answers_go_by_it_and_others_do_not(self, finished: Path) -> None:
        facts = json.loads((finished / "adapter" / "featherweight.json").read_text(encoding="utf-8"))
        decision = facts["decision_threshold"]
        assert decision["pos_label"] == "yes"
        texts = [row["text"] for row in unequal(60)]
        calibrated = load_predictor(str(finished), calibrated=True).predict(texts)
        for reply in calibrated:
            share = reply["probabilities"]["yes"]
            assert reply["label"] == ("yes" if share >= decision["threshold"] else "no")
        plain = load_predictor(str(finished)).predict(texts)
        for reply in plain:
            assert reply["label"] == max(reply["probabilities"], key=reply["probabilities"].__getitem__)
        assert [one["label"] for one in plain] != [one["label"] for one in calibrated], "it makes a difference here"
        with pytest.raises(ConfigError, match="answers from a decision threshold on"):
            load_predictor(str(finished), max_error_rate=0.1)

    def test_it_travels_with_an_export(self, finished: Path, tmp_path: Path) -> None:
        workflow.export(finished, "merged", tmp_path / "merged")
        texts = [row["text"] for row in unequal(40)]
        one, other = (
            load_predictor(str(where), calibrated=True).predict(texts) for where in (finished, tmp_path / "merged")
        )
        assert [reply["label"] for reply in one] == [reply["label"] for reply in other]

    def test_what_can_not_be_had_is_said_and_nothing_is_set(self, models: Models, tmp_path: Path) -> None:
        rows = [
            {**row, "label": draw}
            for row, draw in zip(unequal(160), random.Random(0).choices("ab", k=160), strict=True)
        ]
        content = tiny.recipe(
            models("bert"), tiny.save_jsonl(tmp_path / "t.jsonl", rows),
            evidence={"decision_threshold": {"precision": 1.0}, "baselines": []}, training={"max_steps": 2},
        )  # fmt: skip
        workflow.run(recipes.parse(content), tmp_path / "run", progress=False)
        metrics: dict[str, Any] = dict(RunDirectory(tmp_path / "run").read_metrics())
        if metrics["decision"]["tuned"]["threshold"] is not None:
            pytest.skip("the surest row happened to be right")
        facts = json.loads((tmp_path / "run" / "adapter" / "featherweight.json").read_text(encoding="utf-8"))
        assert facts["decision_threshold"] is None
        assert "so none is set" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
        load_predictor(str(tmp_path / "run"), calibrated=True).predict(["great film"])
