"""Regression: numbers in the unit of the data, their figures, their intervals, and what is refused as no number."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving
import stock
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn
from test_run import RESUMED, files_of, stopped_and_resumed
from test_trainer_equivalence import SETTINGS, _padding_tokenizer, largest_difference, train_ours, trained

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.number import COVERAGE, VALUE, Number
from featherweight.errors import ConfigError, DataError, ModelError
from featherweight.evidence.exhibits import fit_on_half
from featherweight.inference.predictor import load_predictor
from featherweight.records.answers import Answers
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding, Ragged
from featherweight.runs.directory import RunDirectory
from featherweight.tasks.regression import Regression

Models = Callable[[str], Path]
STATISTICS = {one.name: one for one in Number.statistics}
TEXTS = ["great", "", "the film was dull and very very cold", "a warm story with lovely music", "the"] * 3


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences whose number is told by their words, far from 0 and far from a deviation of 1."""
    draw = random.Random(seed)
    made = []
    for index in range(count):
        words = draw.choices([*tiny.GOOD, *tiny.BAD, *tiny.PLAIN], k=draw.randint(1, 6))
        value = sum((word in tiny.GOOD) - (word in tiny.BAD) for word in words)
        made.append({"text": " ".join([*words, str(index)]), "label": 40 + 7.5 * value + draw.random()})
    return made


def recipe(models: Models, train: Path, **sections: Any) -> dict[str, Any]:
    return tiny.recipe(models("bert"), train, **sections) | {"task": "regression"}


def run(content: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    return workflow.run(recipes.parse(content), folder, progress=False, **options).metrics


def answers(values: Any) -> Answers:
    return Answers({VALUE: np.asarray(values, dtype=np.float64)})


@pytest.fixture(scope="module")
def made(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train.csv`` and the finished ``run``."""
    folder = tmp_path_factory.mktemp("regression")
    train = tiny.save_csv(folder / "train.csv", rows(240))
    run(recipe(models, train, training={"num_train_epochs": 3}), folder / "run")
    return folder


@pytest.fixture(scope="module")
def finished(made: Path) -> Path:
    return made / "run"


class TestFigures:
    """Each equals the library that users know, of all rows and of any resample of them."""

    @staticmethod
    def expected(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return {
            "rmse": sklearn.root_mean_squared_error(truth, found),
            "mae": sklearn.mean_absolute_error(truth, found),
            "r2": sklearn.r2_score(truth, found),
            "pearson": float(stats.pearsonr(found, truth).statistic),
            "spearman": float(stats.spearmanr(found, truth).statistic),
        }

    @given(
        seed=st.integers(0, 10_000),
        count=st.integers(3, 60),
        scale=st.sampled_from([1e-4, 1.0, 1e5]),
        offset=st.sampled_from([0.0, -3.0, 1e6]),
        whole=st.booleans(),
    )
    def test_of_all_rows(self, seed: int, count: int, scale: float, offset: float, whole: bool) -> None:
        draw = np.random.default_rng(seed)
        truth = draw.normal(size=count)
        found = truth + draw.normal(size=count)
        truth, found = (np.round(2 * one) if whole else one for one in (truth, found))  # ranks have ties
        truth, found = offset + scale * truth, offset + scale * found
        if np.ptp(truth) == 0 or np.ptp(found) == 0:
            return
        expected = self.expected(found, truth)
        for name, statistic in STATISTICS.items():
            value = statistic.of(answers(found), truth).of_all_rows
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name

    @pytest.mark.parametrize("name", ["rmse", "mae", "r2", "pearson"])
    def test_of_rows_that_are_drawn_again(self, name: str) -> None:
        draw = np.random.default_rng(1)
        truth = 50 + 9 * draw.normal(size=200)
        found = truth + 5 * draw.normal(size=200)
        statistic = STATISTICS[name].of(answers(found), truth)
        for _ in range(20):
            chosen = draw.integers(0, 200, 200)
            assert len(set(chosen.tolist())) < 200
            value = statistic.select(chosen).of_all_rows
            assert value == pytest.approx(self.expected(found[chosen], truth[chosen])[name], abs=1e-9)
        mask = draw.random(200) < 0.3
        value = statistic.select(mask).of_all_rows
        assert value == pytest.approx(self.expected(found[mask], truth[mask])[name], abs=1e-9)

    def test_ranks_of_drawn_rows_are_those_of_all_which_is_near(self) -> None:
        draw = np.random.default_rng(2)
        truth = draw.normal(size=400)
        found = truth + draw.normal(size=400)
        statistic = STATISTICS["spearman"].of(answers(found), truth)
        for _ in range(10):
            chosen = draw.integers(0, 400, 400)
            exact = self.expected(found[chosen], truth[chosen])["spearman"]
            assert statistic.select(chosen).of_all_rows == pytest.approx(exact, abs=0.01)

    @pytest.mark.parametrize("constant", [0.1, 1 / 3, 40.123456789, -1e-9, 1e7 + 0.1])
    @pytest.mark.parametrize("count", [2, 3, 7, 100, 999])
    def test_what_does_not_vary_correlates_with_nothing(self, constant: float, count: int) -> None:
        """Rounding about a mean must not be taken for variation."""
        truth = np.random.default_rng(count).normal(size=count)
        flat = np.full(count, constant)
        for name in ("pearson", "spearman"):
            assert STATISTICS[name].of(answers(flat), truth).of_all_rows == 0
            assert STATISTICS[name].of(answers(truth), flat).of_all_rows == 0
        assert STATISTICS["r2"].of(answers(truth), flat).of_all_rows == 0
        half = np.flatnonzero(np.arange(count) % 2 == 0)
        mixed = np.where(np.arange(count) % 2 == 0, constant, truth)
        for name in ("pearson", "spearman"):  # what varies among all rows and not among those chosen
            assert STATISTICS[name].of(answers(mixed), truth).select(half).of_all_rows == 0
        assert STATISTICS["r2"].of(answers(truth), mixed).select(half).of_all_rows == 0

    def test_nearly_flat_answers_still_correlate(self) -> None:
        """The negative control: little variation is not none."""
        truth = np.random.default_rng(0).normal(size=100)
        found = 5 + 1e-6 * truth
        assert STATISTICS["pearson"].of(answers(found), truth).of_all_rows == pytest.approx(1, abs=1e-6)


def encoded(count: int = 43, mean: float = 40.0, deviation: float = 12.0) -> Encoding:
    """Random texts with numbers in the data's unit. No multiple of the batch."""
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, 12, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = draw.integers(6, len(tiny.vocabulary()), offsets[-1]).astype(np.int32)
    return Encoding(Ragged(tokens, offsets), mean + deviation * draw.normal(size=count))


def adapted_model() -> Any:
    """A tiny stock regressor with LoRA whose B is not zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(11)
    config = tiny.config("bert", num_labels=1, problem_type="regression", pad_token_id=0)
    model = AutoModelForSequenceClassification.from_config(config)
    return get_peft_model(
        model,
        LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"], init_lora_weights=False),
    )


def train_stock(model: Any, encoding: Encoding, kind: Number, folder: Path, **changes: Any) -> list[float]:
    """The Trainer with the loss of the stock model, on the same rows; labels are standardised beforehand, as its users
    have to do themselves."""
    import transformers

    wanted = kind.standardised(np.asarray(encoding.targets))
    data = [
        {"input_ids": encoding.tokens.row(index).tolist(), "labels": float(wanted[index])}
        for index in range(len(encoding))
    ]
    settings = {**{key: value for key, value in SETTINGS.items() if key != "warmup_ratio"}, **changes}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        warmup_steps=SETTINGS["warmup_ratio"], **settings,
    )  # fmt: skip
    losses: list[float] = []

    class Recording(transformers.Trainer):
        def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
            loss = super().training_step(*given, **named)
            losses.append(0.0) if len(losses) == self.state.global_step else None
            losses[-1] += float(loss)
            return loss

    collator = transformers.DataCollatorWithPadding(_padding_tokenizer())
    Recording(model=model, args=arguments, train_dataset=data, data_collator=collator).train()
    return losses


class TestLoss:
    def test_step_by_step_it_is_the_trainers(self, tmp_path: Path) -> None:
        encoding = encoded()
        kind = Number.of_truth(np.asarray(encoding.targets))
        ours, theirs = adapted_model(), adapted_model()
        start = trained(ours)
        found = train_ours(ours, encoding, tmp_path / "ours", task=Regression(kind), gradient_accumulation_steps=1)
        expected = train_stock(theirs, encoding, kind, tmp_path / "stock", gradient_accumulation_steps=1)
        assert len(found) == len(expected) == 22
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
        assert largest_difference(trained(ours), trained(theirs)) < 1e-5
        assert largest_difference(trained(ours), start) > 1e-3

    def test_another_scale_is_seen(self, tmp_path: Path) -> None:
        """The negative control: the comparison above holds the scale too."""
        encoding = encoded()
        kind = Number.of_truth(np.asarray(encoding.targets))
        other = Number(kind.mean, kind.deviation * 1.01)
        found = train_ours(adapted_model(), encoding, tmp_path / "ours", task=Regression(other), num_train_epochs=1.0)
        same = train_ours(adapted_model(), encoding, tmp_path / "again", task=Regression(kind), num_train_epochs=1.0)
        assert max(abs(np.asarray(found) - np.asarray(same))) > 1e-3

    def test_accumulated_batches_are_one_batch_which_stock_inflates(self, tmp_path: Path) -> None:
        """Stock heads for numbers ignore ``num_items_in_batch``, and the Trainer takes them not to: the loss of a step
        is the sum of its micro-batches' means."""
        encoding = encoded(36)
        kind = Number.of_truth(np.asarray(encoding.targets))
        losses, models = {}, {}
        for batch, accumulated in ((4, 3), (12, 1)):
            models[batch] = adapted_model()
            losses[batch] = train_ours(
                models[batch], encoding, tmp_path / str(batch), task=Regression(kind),
                per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated,
            )  # fmt: skip
        np.testing.assert_allclose(losses[4], losses[12], atol=1e-4)
        assert losses[4][0] == pytest.approx(losses[12][0], abs=1e-6)
        # Adam divides by the root of the squared gradient, so rounding of a gradient near zero is not small in it.
        assert largest_difference(trained(models[4]), trained(models[12])) < 1e-4
        inflated = train_stock(adapted_model(), encoding, kind, tmp_path / "stock")
        assert inflated[0] == pytest.approx(3 * losses[4][0], abs=1e-4)

    def test_it_is_summed_in_fp32_of_standard_deviations(self) -> None:
        task = Regression(Number(1e6, 0.5))
        targets = torch.tensor([1e6, 1e6 + 0.5, 1e6 - 1], dtype=torch.float64)
        values = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.bfloat16)
        assert float(task.loss(Outputs.one_each(values), targets)) == 0 + 1 + 9


class TestIntervals:
    """Split conformal prediction: what is stated is what is held, whatever the errors are like."""

    @staticmethod
    def coverage(fitting: int, repeats: int, draw: Callable[[int], np.ndarray], spoiled: float = 1.0) -> float:
        """The mean share held at the stated coverage, of rows that are exchangeable with those fitted on."""
        held = []
        for _ in range(repeats):
            errors = draw(fitting + 500)
            known, others = errors[:fitting] * spoiled, errors[fitting:]
            zeros = [np.zeros(len(one)) for one in (known, others)]
            found = Number(0, 1).fit((answers(known), zeros[0]), (answers(others), zeros[1]))
            (one,) = (one for one in found["intervals"] if one["coverage"] == COVERAGE)
            held.append(one["reported_coverage"])
        return float(np.mean(held))

    @pytest.mark.parametrize("shape", ["normal", "heavy", "one-sided"])
    def test_coverage_is_what_is_stated(self, shape: str) -> None:
        draw = np.random.default_rng(4)
        make = {
            "normal": lambda rows: draw.normal(size=rows),
            "heavy": lambda rows: draw.standard_t(2, size=rows),
            "one-sided": lambda rows: draw.exponential(size=rows) * 1e5,
        }[shape]
        assert self.coverage(99, 400, make) == pytest.approx(COVERAGE, abs=0.006)

    def test_errors_of_rows_that_were_trained_on_hold_less(self) -> None:
        """The negative control."""
        draw = np.random.default_rng(4)
        assert self.coverage(99, 100, lambda rows: draw.normal(size=rows), spoiled=0.8) < COVERAGE - 0.03

    def test_the_quantile_is_the_exact_one_of_any_number_of_rows(self) -> None:
        for count in range(1, 400):
            errors = np.arange(1, count + 1.0)
            found = Number(0, 1).fit((answers(errors), np.zeros(count)), (answers([0.0]), np.zeros(1)))
            for one in found["intervals"]:
                rank = math.ceil((count + 1) * Fraction(str(one["coverage"])))
                expected = float(rank) if rank <= count else None
                assert one["half_width"] == expected, (count, one)

    @pytest.mark.parametrize(
        ("count", "coverages"), [(0, []), (3, []), (8, [0.8]), (18, [0.8, 0.9]), (19, [0.8, 0.9, 0.95])]
    )
    def test_too_few_rows_give_no_interval(self, count: int, coverages: list[float]) -> None:
        found = Number(0, 1).fit((answers(np.ones(count)), np.zeros(count)), (answers([1.0]), np.zeros(1)))
        assert [one["coverage"] for one in found["intervals"] if one["half_width"] is not None] == coverages
        if 0.9 not in coverages:
            with pytest.raises(ModelError, match="no interval was fitted for it; leave --calibrated out"):
                Number(0, 1).options("run", found, {"calibrated": True})

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_a_handful_of_rows_can_be_divided(self, count: int) -> None:
        found = fit_on_half(Number(0, 1), answers(np.arange(float(count))), np.zeros(count), 0)
        assert found["fitted_rows"] + found["reported_rows"] == count
        assert all(one["half_width"] is None for one in found["intervals"])

    def test_error_rates_are_for_labels(self) -> None:
        with pytest.raises(ConfigError, match="--calibrated gives each its interval"):
            Number(0, 1).options("run", {}, {"max_error_rate": 0.1})


def save(path: Path, cells: Sequence[Any]) -> Path:
    content = [{"text": f"the film {index}", "label": cell} for index, cell in enumerate(cells)]
    return tiny.save_csv(path, content) if path.suffix == ".csv" else tiny.save_jsonl(path, content)


class TestReading:
    @pytest.mark.parametrize(
        ("ending", "cell", "said"),
        [
            ("csv", "much", "'much' in the column 'label' is no number"),
            ("csv", "nan", "'nan' in the column 'label' is no number"),
            ("csv", "inf", "'inf' in the column 'label' is no number"),
            ("csv", "-Infinity", "'-Infinity' in the column 'label' is no number"),
            ("csv", "1e999", "'1e999' in the column 'label' is no number"),
            ("csv", "3,5", "'3,5' in the column 'label' is no number"),
            ("csv", "1_5", "'1_5' in the column 'label' is no number"),
            ("csv", "12 EUR", "'12 EUR' in the column 'label' is no number"),
            ("csv", "", r"no number in column 'label' \(1 of 40 rows\); give these rows one or take them out"),
            ("csv", "  ", r"no number in column 'label' \(1 of 40 rows\)"),
            ("jsonl", None, r"no number in column 'label' \(1 of 40 rows\)"),
            ("jsonl", "much", "'much' in the column 'label' is no number|mixes types"),
            ("jsonl", True, "is no number|mixes types"),
        ],
    )
    def test_what_is_no_number_is_refused_by_file_and_row(
        self, ending: str, cell: Any, said: str, models: Models, tmp_path: Path
    ) -> None:
        cells: list[Any] = [index / 4 for index in range(40)]
        cells[6] = cell
        train = save(tmp_path / f"train.{ending}", cells)
        with pytest.raises(DataError, match=said) as caught:
            run(recipe(models, train), tmp_path / "run")
        assert str(train) in str(caught.value)
        assert "row 7" in str(caught.value)
        assert not (tmp_path / "run").exists()

    def test_numbers_that_are_all_the_same_are_refused(self, models: Models, tmp_path: Path) -> None:
        train = save(tmp_path / "train.csv", [2.5] * 40)
        with pytest.raises(
            DataError, match=r"train\.csv: the numbers in 'label' can't be learned: they are all the same"
        ):
            run(recipe(models, train), tmp_path / "run")

    def test_a_train_split_without_numbers_is_named(self, models: Models, tmp_path: Path) -> None:
        train = save(tmp_path / "train.csv", [""] * 40)
        with pytest.raises(DataError, match="the train split is unlabelled"):
            run(recipe(models, train), tmp_path / "run")

    def test_json_spells_whole_numbers_without_a_point(self, models: Models, tmp_path: Path) -> None:
        """3 and 2.5 are of one kind here, though labels must not mix."""
        cells = [index // 2 if index % 2 else index / 2 for index in range(40)]
        assert {type(cell) for cell in cells} == {int, float}
        train = save(tmp_path / "train.jsonl", cells)
        metrics = run(recipe(models, train, training={"max_steps": 1}), tmp_path / "run")
        assert metrics["numbers"]["train"]["greatest"] <= 19
        with pytest.raises(DataError, match="mixes types"):
            run(tiny.recipe(models("bert"), train), tmp_path / "labels")

    @pytest.mark.parametrize("cells", [[index / 4 for index in range(240)], [3.5, 4.25] * 20])
    def test_labels_that_are_numbers_name_this_task(self, cells: list[Any], models: Models, tmp_path: Path) -> None:
        train = save(tmp_path / "train.csv", cells)
        with pytest.raises(DataError, match='task = "regression"'):
            run(tiny.recipe(models("bert"), train), tmp_path / "run")

    def test_whole_and_scientific_numbers_and_white_space(self, models: Models, tmp_path: Path) -> None:
        train = save(tmp_path / "train.csv", ["1", " 2 ", "3e0", "-4.0", "+5"] * 12)
        found = run(recipe(models, train, training={"max_steps": 1}), tmp_path / "run")["numbers"]["train"]
        assert (found["least"], found["greatest"]) == (-4, 5)


class TestRuns:
    def test_figures_are_those_of_the_predictions(self, finished: Path) -> None:
        metrics = json.loads((finished / "metrics.json").read_text())
        for model in ("base", "tuned"):
            found = RunDirectory(finished).read_predictions(model, "validation")
            expected = TestFigures.expected(found.answers[VALUE], found.truth)  # type: ignore[arg-type]
            for name, value in expected.items():
                assert metrics[model][f"eval_{name}"] == pytest.approx(value, abs=1e-9)
        assert metrics["comparison"]["metric"] == "rmse"
        assert set(metrics["baselines"]) == {"mean", "tfidf-ridge", "ridge-probe"}
        assert metrics["baselines"]["mean"]["eval_pearson"] == 0
        assert metrics["baselines"]["tfidf-ridge"]["eval_r2"] > 0.5, "the words tell the number"

    def test_the_verdict_knows_that_less_is_better(self, models: Models, tmp_path: Path) -> None:
        """Trained by so much that it answers nonsense, a model is worse, though its error is the greater number."""
        train = tiny.save_csv(tmp_path / "train.csv", rows(120))
        settings = {"learning_rate": 1.0, "max_steps": 4, "load_best_model_at_end": False}
        comparison = run(recipe(models, train, training=settings), tmp_path / "run")["comparison"]
        assert comparison["difference"] > 0
        assert comparison["verdict"] == "worse"

    @pytest.mark.parametrize("name", ["rmse", "pearson"])
    def test_the_best_epoch_has_the_least_error_or_the_most_of_another(
        self, name: str, made: Path, models: Models, tmp_path: Path
    ) -> None:
        settings = {"num_train_epochs": 5, "metric_for_best_model": name, "learning_rate": 3e-2}
        metrics = run(recipe(models, made / "train.csv", training=settings), tmp_path / "run")
        values = [epoch[f"eval_{name}"] for epoch in metrics["epochs"]]
        best = min(values) if name == "rmse" else max(values)
        assert metrics["tuned"][f"eval_{name}"] == pytest.approx(best, rel=1e-5)
        assert np.ptp(values) > 1e-3 * abs(best), "epochs that are all alike would prove nothing"

    def test_two_runs_are_compared_on_their_rows(
        self, finished: Path, made: Path, models: Models, tmp_path: Path
    ) -> None:
        """And a lower error is the better one."""
        settings = {"learning_rate": 1.0, "max_steps": 4, "load_best_model_at_end": False}
        run(recipe(models, made / "train.csv", training=settings), tmp_path / "bad")
        (found,) = workflow.compare([str(finished), str(tmp_path / "bad")])["comparisons"]
        assert found["metric"] == "rmse"
        assert found["difference"] > 0
        assert found["verdict"] == "worse"

    def test_the_scale_is_trains_and_travels(self, made: Path) -> None:
        facts = json.loads((made / "run" / "adapter" / "featherweight.json").read_text())
        held_out = set(RunDirectory(made / "run").read_predictions("tuned", "validation").ids.tolist())
        train = np.asarray([row["label"] for index, row in enumerate(rows(240)) if index not in held_out])
        assert 0 < len(held_out) < 240
        assert facts["scale"]["mean"] == pytest.approx(train.mean(), rel=1e-12)
        assert facts["scale"]["deviation"] == pytest.approx(train.std(), rel=1e-12)
        whole = np.asarray([row["label"] for row in rows(240)])
        assert facts["scale"]["mean"] != pytest.approx(whole.mean(), rel=1e-6), "what is held out has no say in it"

    def test_the_cards_lines_give_our_numbers(self, finished: Path) -> None:
        adapter = finished / "adapter"
        card = (adapter / "README.md").read_text()
        code = card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/folder", str(adapter))
        names: dict[str, Any] = {}
        exec(code, names)
        model, tokenizer = stock.by_card(adapter)
        found = names["number"](stock.logits(model, tokenizer, TEXTS, 16)).tolist()
        expected = [one["value"] for one in load_predictor(finished).predict(TEXTS)]
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.std([row["label"] for row in rows(240)]))
        assert np.ptp(expected) > 0.01, "answers that are all alike would prove nothing"
        assert "rmse" in card
        assert "pipeline_tag: text-classification" in card

    def test_a_stopped_run_resumes_to_the_same_bytes(
        self, made: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        training = RESUMED | {"num_train_epochs": 2}
        content = recipe(models, made / "train.csv", training=training, method={"lora_dropout": 0.2})
        run(content, tmp_path / "whole")
        stopped_and_resumed(content, tmp_path / "stopped", 7, monkeypatch)
        whole, stopped = (files_of(tmp_path / name / "adapter") for name in ("whole", "stopped"))
        assert whole["adapter_model.safetensors"] == stopped["adapter_model.safetensors"]
        assert whole["featherweight.json"] == stopped["featherweight.json"]

    @pytest.mark.parametrize("form", ["merged", "onnx"])
    def test_exports_answer_and_measure_as_their_run(self, form: str, finished: Path, tmp_path: Path) -> None:
        if form == "onnx":
            pytest.importorskip("onnx")
            pytest.importorskip("onnxruntime")
        workflow.export(finished, form, tmp_path / "out")
        mine, theirs = load_predictor(tmp_path / "out"), load_predictor(finished)
        np.testing.assert_allclose(mine.answers(TEXTS)[VALUE], theirs.answers(TEXTS)[VALUE], rtol=1e-5)
        section = Regression.Columns(train_file=str(tiny.save_csv(tmp_path / "new.csv", rows(40, seed=5))))
        run_says, export_says = (workflow.evaluate(str(one), section) for one in (finished, tmp_path / "out"))
        assert run_says.keys() == export_says.keys()
        for name in ("loss", *STATISTICS):
            assert export_says[f"eval_{name}"] == pytest.approx(run_says[f"eval_{name}"], rel=1e-4, abs=1e-4)
        calibrated = load_predictor(tmp_path / "out", calibrated=True).predict(TEXTS[:1])[0]
        low, high = calibrated["interval"]
        assert (low + high) / 2 == pytest.approx(calibrated["value"])

    def test_evaluate_says_what_metrics_json_says(self, finished: Path) -> None:
        kept = json.loads((finished / "metrics.json").read_text())["tuned"]
        found = workflow.evaluate(str(finished))
        for name in ("eval_loss", "eval_rmse", "eval_spearman", "eval_rmse_interval"):
            assert found[name] == pytest.approx(kept[name], abs=1e-6)
        assert found["own_held_out_rows"] is True

    @pytest.mark.slow
    def test_the_command_predicts_files_with_intervals(self, cli: Any, finished: Path, tmp_path: Path) -> None:
        half = next(
            one["half_width"]
            for one in json.loads((finished / "adapter" / "featherweight.json").read_text())["intervals"]
            if one["coverage"] == COVERAGE
        )
        expected = [one["value"] for one in load_predictor(finished).predict(["great film", "", "the plot"])]
        content = [{"n": str(index), "text": text} for index, text in enumerate(["great film", "", "the plot"])]
        for source, target in (("in.csv", "out.jsonl"), ("in.jsonl", "out.csv")):
            (tiny.save_csv if source == "in.csv" else tiny.save_jsonl)(tmp_path / source, content)
            done = cli("predict", finished, "--input", source, "--output", target, "--calibrated")
            assert done.returncode == 0, done.stderr
            found = read(tmp_path / target)
            assert [row["n"] for row in found] == ["0", "1", "2"]
            values = np.asarray([[float(row[f"prediction{end}"]) for end in ("", "_low", "_high")] for row in found])
            np.testing.assert_allclose(values[:, 0], expected, rtol=1e-6)
            np.testing.assert_allclose(values[:, 1:] - values[:, :1], [[-half, half]] * 3, rtol=1e-9)

    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    @pytest.mark.parametrize("method", ["linear-probe", "full"])
    def test_other_methods_answer_as_they_were_measured(
        self, method: str, kind: str, models: Models, made: Path, tmp_path: Path
    ) -> None:
        content = tiny.recipe(models(kind), made / "train.csv", method={"name": method}, training={"max_steps": 3}) | {
            "task": "regression"
        }
        run(content, tmp_path / "run")
        kept = RunDirectory(tmp_path / "run").read_predictions("tuned", "validation")
        texts = [rows(240)[row]["text"] for row in kept.ids]
        found = load_predictor(tmp_path / "run").answers(texts)[VALUE]
        np.testing.assert_allclose(found, kept.answers[VALUE], rtol=1e-5)

    @pytest.mark.slow
    def test_the_server_gives_the_same_numbers(self, finished: Path) -> None:
        expected = [one["value"] for one in load_predictor(finished).predict(TEXTS)]
        with serving.running(finished) as server:
            answer = server.predict(TEXTS)
            assert answer.status == 200, answer.body
            found = [one["value"] for one in answer.json["predictions"]]
            np.testing.assert_allclose(found, expected, rtol=1e-5)
            assert server.predict([["a", "list"]]).status == 422  # type: ignore[list-item]

    def test_one_text_alone_is_one_among_many(self, finished: Path) -> None:
        predictor = load_predictor(finished)
        together = predictor.answers(TEXTS)[VALUE]
        alone = [predictor.predict(text)[0]["value"] for text in TEXTS]
        np.testing.assert_allclose(together, alone, rtol=1e-6)


def read(path: Path) -> list[dict[str, Any]]:
    import csv

    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream)) if path.suffix == ".csv" else [json.loads(line) for line in stream]


class TestGoingOn:
    def test_the_adapters_scale_is_kept(self, finished: Path, models: Models, tmp_path: Path) -> None:
        """Other numbers would be another scale, in which the adapter's outputs mean something else."""
        other = [{**row, "label": 1000 + 3 * row["label"]} for row in rows(120, seed=9)]
        train = tiny.save_csv(tmp_path / "other.csv", other)
        content = recipe(models, train, training={"num_train_epochs": 1})
        content["model"] = {**content["model"], "adapter": str(finished)}
        run(content, tmp_path / "second")
        first, second = (
            json.loads((folder / "adapter" / "featherweight.json").read_text())["scale"]
            for folder in (finished, tmp_path / "second")
        )
        assert first == second
        assert first["mean"] < 100, "negative control: the new numbers have another mean"
        begun = RunDirectory(tmp_path / "second").read_predictions("base", "validation")
        texts = [other[row]["text"] for row in begun.ids]
        np.testing.assert_allclose(begun.answers[VALUE], load_predictor(finished).answers(texts)[VALUE], rtol=1e-5)

    def test_a_model_with_a_trained_head_answers_in_the_unit_of_its_data(self, models: Models, tmp_path: Path) -> None:
        """Cross-encoders on the hub have one output, which is the number itself."""
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(5)
        config = tiny.config("bert", num_labels=1, problem_type="regression", pad_token_id=0, initializer_range=0.3)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        model.save_pretrained(tmp_path / "model")
        tiny.tokenizer("bert").save_pretrained(tmp_path / "model")
        content = rows(80)
        train = tiny.save_csv(tmp_path / "train.csv", content)
        given = tiny.recipe(tmp_path / "model", train, training={"max_steps": 2}) | {"task": "regression"}
        run(given, tmp_path / "run")
        base = RunDirectory(tmp_path / "run").read_predictions("base", "validation")
        texts = [content[row]["text"] for row in base.ids]
        expected = stock.logits(model, tiny.tokenizer("bert"), texts, 16)[:, 0]
        np.testing.assert_allclose(base.answers[VALUE], expected, atol=1e-5)
        measured = workflow.evaluate(str(tmp_path / "model"), Regression.Columns(train_file=str(train)))
        assert measured["eval_rmse"] == pytest.approx(
            sklearn.root_mean_squared_error(
                [row["label"] for row in content],
                stock.logits(model, tiny.tokenizer("bert"), [row["text"] for row in content], 64)[:, 0],
            ),
            rel=1e-5,
        )


class TestChecks:
    def test_the_same_text_with_a_far_number_is_named(self, models: Models, tmp_path: Path) -> None:
        content = rows(120)
        content[5] = {"text": content[3]["text"].upper(), "label": content[3]["label"] + 60}
        content[9] = {"text": content[8]["text"], "label": content[8]["label"] + 0.1}  # near enough
        train = tiny.save_csv(tmp_path / "train.csv", content)
        found = run(recipe(models, train, training={"max_steps": 1}, data={"allow_leak": True}), tmp_path / "run")
        checked = found["data_checks"]["conflicting_numbers"]
        assert checked["rows"] == 2
        assert sorted(one["row"] for one in checked["examples"]) == [4, 6]
        assert any("a number more than a standard deviation away" in line for line in found["data_checks"]["warnings"])

    def test_a_model_that_says_the_same_of_every_row_is_said_to(self) -> None:
        truth = np.random.default_rng(0).normal(size=50)
        (line,) = Number(0, 1).cautions("test", answers(0.05 * truth), truth)
        assert "nearly the same number of every row of test" in line
        assert Number(0, 1).cautions("test", answers(0.5 * truth), truth) == []

    def test_residuals_and_errors_are_of_the_rows(self, finished: Path) -> None:
        metrics = json.loads((finished / "metrics.json").read_text())
        found = RunDirectory(finished).read_predictions("tuned", "validation")
        residuals = np.asarray(found.answers[VALUE]) - np.asarray(found.truth)
        np.testing.assert_allclose(
            metrics["residuals"]["tuned"]["quantiles"], np.quantile(residuals, [0.05, 0.25, 0.5, 0.75, 0.95])
        )
        assert sum(one["rows"] for one in metrics["residuals"]["tuned"]["bins"]) == len(residuals)
        worst = metrics["examples"]["mistakes"][0]
        assert abs(worst["tuned"] - worst["truth"]) == pytest.approx(np.abs(residuals).max())
        assert worst["id"] == found.ids[np.abs(residuals).argmax()]
        base = np.asarray(RunDirectory(finished).read_predictions("base", "validation").answers[VALUE])
        gained = np.abs(base - found.truth) - np.abs(residuals)
        assert metrics["examples"]["improved"][0]["id"] == found.ids[gained.argmax()]
        assert metrics["examples"]["worsened"][0]["id"] == found.ids[gained.argmin()]
