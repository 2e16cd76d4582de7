"""Any number of labels a row: their figures, how they are read, their thresholds, and the loss of the Trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from tasks_data import SAMPLES
from test_trainer_equivalence import SETTINGS, _padding_tokenizer, largest_difference, train_ours, trained

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers import thresholds
from featherweight.answers.label import PROBABILITIES
from featherweight.answers.labels import LabelSets
from featherweight.errors import ConfigError, DataError, ModelError
from featherweight.evidence.exhibits import fit_on_half
from featherweight.evidence.logistic import fit_each
from featherweight.inference.predictor import load_predictor
from featherweight.recipe.reading import load_data_section
from featherweight.records.answers import Answers
from featherweight.records.rows import Encoding, Ragged
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.statistics import ranking
from featherweight.tasks.multi_label_classification import MultiLabelClassification

Models = Callable[[str], Path]
TASK = "multi-label-classification"
NAMES = ("joy", "fear", "anger", "trust")
STATISTICS = {one.name: one for one in LabelSets.statistics}
(SAMPLE,) = (one for one in SAMPLES if one.task == TASK)


def drawn(seed: int, count: int, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, some of them alike, and a truth that they say something of."""
    draw = np.random.default_rng(seed)
    truth = draw.random((count, labels)) < draw.uniform(0.05, 0.7, labels)
    found = np.round(np.clip(draw.normal(0.35 + 0.3 * truth, 0.3), 0.01, 0.99), 1)
    return found.astype(np.float32), truth


def answers(found: Any) -> Answers:
    return Answers({PROBABILITIES: np.asarray(found, dtype=np.float32)})


class TestFigures:
    """Each equals scikit-learn's."""

    @given(seed=st.integers(0, 10_000), count=st.integers(2, 60))
    def test_of_all_rows(self, seed: int, count: int) -> None:
        found, truth = drawn(seed, count)
        said = found >= 0.5
        known = np.flatnonzero(truth.any(axis=0) | said.any(axis=0))
        some = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
        expected = {
            "f1_micro": sklearn.f1_score(truth, said, average="micro", zero_division=0),
            "f1_macro": sklearn.f1_score(truth[:, known], said[:, known], average="macro", zero_division=0)
            if len(known)
            else 0.0,
            "f1_samples": sklearn.f1_score(truth, said, average="samples", zero_division=1),
            "subset_accuracy": sklearn.accuracy_score(truth, said),
            "hamming_loss": sklearn.hamming_loss(truth, said),
            "roc_auc": sklearn.roc_auc_score(truth[:, some], found[:, some], average="macro") if len(some) else 0.0,
            "average_precision": sklearn.average_precision_score(truth[:, some], found[:, some], average="macro")
            if len(some)
            else 0.0,
        }
        assert set(expected) == set(STATISTICS)
        for name, value in expected.items():
            ours = STATISTICS[name].of(answers(found), truth).of_all_rows
            assert ours == pytest.approx(value, abs=1e-9), name

    @pytest.mark.parametrize("of", ["roc_auc", "average_precision"])
    def test_influence_is_the_slope_by_a_rows_weight(self, of: str) -> None:
        stock = getattr(sklearn, f"{of}_score")
        for seed in range(8):
            found, truth = drawn(seed, 40, 1)
            scores, holds = found[:, 0].astype(np.float64), truth[:, 0]
            ours = getattr(ranking, of)(scores, holds)
            for row in range(0, 40, 3):
                weights = np.ones(40)
                weights[row] += 1e-6
                slope = (stock(holds, scores, sample_weight=weights) - stock(holds, scores)) / 1e-6
                assert (ours[row] - ours.mean()) / 40 == pytest.approx(slope, abs=1e-5)

    def test_a_drawn_sample_has_nearly_its_own_ranks(self) -> None:
        found, truth = drawn(1, 2000)
        statistic = STATISTICS["average_precision"].of(answers(found), truth)
        draw = np.random.default_rng(0)
        moved = []
        for _ in range(20):
            rows = draw.integers(0, 2000, 2000)
            exact = sklearn.average_precision_score(truth[rows], found[rows], average="macro")
            moved.append((statistic.select(rows).of_all_rows - statistic.of_all_rows, exact - statistic.of_all_rows))
        ours, theirs = np.asarray(moved).T
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99
        assert np.abs(ours - theirs).max() < 0.2 * np.abs(theirs).max()

    def test_thresholds_are_the_best_on_their_own_rows(self) -> None:
        found, truth = drawn(3, 400)
        for label in range(4):
            best = thresholds.best_for_f1(found[:, label], truth[:, label], 0.5)
            ours = sklearn.f1_score(truth[:, label], found[:, label] >= best)
            for other in np.linspace(0.005, 0.995, 100):
                assert ours >= sklearn.f1_score(truth[:, label], found[:, label] >= other, zero_division=0) - 1e-12

    def test_rare_labels_share_a_threshold(self) -> None:
        found, truth = drawn(4, 300)
        truth[:, 2] = False
        truth[:5, 2] = True
        ours = thresholds.fit(found, truth, 0.5)
        assert ours[2] == thresholds.best_for_f1(found.ravel(), truth.ravel(), 0.5)
        assert ours[2] != thresholds.best_for_f1(found[:, 2], truth[:, 2], 0.5)
        assert ours[0] == thresholds.best_for_f1(found[:, 0], truth[:, 0], 0.5)

    def test_their_gain_is_of_rows_that_did_not_choose(self) -> None:
        """Of probabilities that say nothing thresholds gain on the rows that chose them, and not on others."""
        draw = np.random.default_rng(0)
        found, truth = draw.random((4000, 4)).astype(np.float32), draw.random((4000, 4)) < 0.5
        fitted = fit_on_half(LabelSets(NAMES), answers(found), truth, seed=0)
        low, high = fitted["gain"]["subset_accuracy"]["confidence_interval"]
        assert low <= 0 <= high
        assert (fitted["fitted_rows"], fitted["reported_rows"]) == (2000, 2000)


def test_one_descent_for_all_labels_is_scikit_learns() -> None:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    features = draw.normal(size=(200, 12))
    holds = features[:, :5] + draw.normal(size=(200, 5)) > 0.7
    holds[:, 3], holds[:, 4] = False, True
    for strength in (0.01, 1.0):
        for intercept in (True, False):
            for given_ in (features, sparse.csr_array(features)):
                weights, biases = fit_each(given_, holds, strength, intercept)
                for label in range(3):
                    stock = LogisticRegression(C=strength, fit_intercept=intercept, tol=1e-8, max_iter=5000)
                    stock.fit(features, holds[:, label])
                    np.testing.assert_allclose(weights[label], stock.coef_[0], atol=2e-4)
                    assert biases[label] == pytest.approx(float(np.ravel(stock.intercept_)[0]), abs=2e-4)
                assert not weights[3:].any()
                assert biases[3] == -biases[4] < -9


def sets_of(tmp_path: Path, rows: list[dict[str, Any]], suffix: str = "jsonl", **keys: Any) -> dict[str, Any]:
    """What the rows of a file are read as: the names, each row's set, and what was said of the reading."""
    path = getattr(tiny, f"save_{suffix}")(tmp_path / f"t.{suffix}", rows)
    from featherweight.tasks.columns import LabelSetColumns

    section = LabelSetColumns(train_file=str(path), validation_fraction=0.2, **keys)
    task, examples = MultiLabelClassification.prepare(data.load(section), section, 0)
    whole = {}
    for split in examples.values():
        for place, row in enumerate(split.ids):
            whole[int(row)] = [name for name, one in zip(task.answer.names, split.truth[place], strict=True) if one]
    found = [set(whole[row]) for row in sorted(whole)]
    return {"names": task.answer.names, "sets": found, "said": examples["train"].reading}


EXPECTED = [set(), {"joy"}, {"joy", "fear"}, {"fear"}, {"anger", "fear", "joy"}] * 8
TEXTS = [f"text {index}" for index in range(len(EXPECTED))]


def rows_of(write: Callable[[set[str]], Any], column: str = "labels") -> list[dict[str, Any]]:
    return [{"text": text, column: write(one)} for text, one in zip(TEXTS, EXPECTED, strict=True)]


class TestForms:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv"])
    @pytest.mark.parametrize(
        ("write", "keys"),
        [
            (sorted, {}),
            (lambda one: json.dumps(sorted(one)), {}),
            (lambda one: "|".join(sorted(one)), {"label_separator": "|"}),
            (lambda one: " , ".join(sorted(one)) + ",", {"label_separator": ","}),
            (lambda one: {name: int(name in one) for name in ("joy", "fear", "anger")}, {}),
            (
                lambda one: [int(name in one) for name in ("joy", "fear", "anger")],
                {"labels": ["joy", "fear", "anger"]},
            ),
            (lambda one: [("joy", "fear", "anger").index(name) for name in one], {"labels": ["joy", "fear", "anger"]}),
        ],
        ids=["lists", "JSON", "bars", "commas", "yes or no", "zeros and ones", "numbers"],
    )
    def test_of_a_cell(self, write: Any, keys: dict[str, Any], suffix: str, tmp_path: Path) -> None:
        if suffix == "csv":
            plain = write
            write = lambda one: plain(one) if isinstance(plain(one), str) else json.dumps(plain(one))  # noqa: E731
        found = sets_of(tmp_path, rows_of(write), suffix, **keys)
        assert found["sets"] == EXPECTED
        assert found["names"] == tuple(keys.get("labels") or ("anger", "fear", "joy"))

    @pytest.mark.parametrize("suffix", ["jsonl", "csv"])
    @pytest.mark.parametrize("marks", [(0, 1), (False, True), ("0.0", "1.0")])
    def test_a_column_for_each_label(self, marks: tuple[Any, Any], suffix: str, tmp_path: Path) -> None:
        columns = ["joy", "fear", "anger"]
        rows = [
            {"text": text, **{name: marks[name in one] for name in columns}}
            for text, one in zip(TEXTS, EXPECTED, strict=True)
        ]
        found = sets_of(tmp_path, rows, suffix, labels_columns=columns)
        assert (found["sets"], found["names"]) == (EXPECTED, tuple(columns))
        rows[7]["fear"] = "perhaps"
        with pytest.raises(DataError, match=r"row 8: 'perhaps' in the column 'fear' is neither 0 nor 1"):
            sets_of(tmp_path, rows, suffix, labels_columns=columns)

    def test_parquet_keeps_its_lists(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows_of(sorted)), tmp_path / "t.parquet")
        section = load_data_section({"train_file": str(tmp_path / "t.parquet")}, TASK)
        task, examples = MultiLabelClassification.prepare(data.load(section), section, 0)
        assert task.answer.names == ("anger", "fear", "joy")
        assert examples["train"].truth.dtype == bool

    @pytest.mark.parametrize(
        ("cell", "named"),
        [
            ("joy", r"row 3: 'joy' in the column 'labels' is no list of labels.*label_separator.*sequence-class"),
            (None, r"row 3: no labels in 'labels' \(1 of 40 rows\).*missing_labels = \"empty\""),
            (["joy", ["fear"]], "row 3"),
            (["Joy"], "row 3: the labels 'joy' and 'Joy' differ only in case"),
        ],
    )
    def test_what_is_no_set_is_refused_with_its_row(self, cell: Any, named: str, tmp_path: Path) -> None:
        rows = rows_of(sorted)
        rows[2]["labels"] = cell
        with pytest.raises(DataError, match=named):
            sets_of(tmp_path, rows)

    def test_rows_without_any_may_have_none(self, tmp_path: Path) -> None:
        rows = rows_of(sorted)
        for row in rows:
            if not row["labels"]:
                del row["labels"]
        with pytest.raises(DataError, match="no labels in 'labels'"):
            sets_of(tmp_path, rows)
        assert sets_of(tmp_path, rows, missing_labels="empty")["sets"] == EXPECTED

    def test_keys_that_do_not_go_together(self) -> None:
        for keys, named in [
            ({"label": "a", "labels_columns": ["a", "b"]}, "either 'label' or 'labels_columns'"),
            ({"labels": ["a", "c"], "labels_columns": ["a", "b"]}, "other names"),
            ({"labels_columns": ["a", "a"]}, "twice"),
        ]:
            with pytest.raises(ConfigError, match=named):
                load_data_section({"train_file": "x.csv", **keys}, TASK)


def test_a_list_given_to_classification_is_told_of_this_task(models: Models, tmp_path: Path) -> None:
    path = tiny.save_jsonl(tmp_path / "t.jsonl", rows_of(sorted))
    content = tiny.recipe(models("bert"), path, data={"label": "labels"})
    with pytest.raises(DataError, match=r'a list of labels, for task = "multi-label-classification"\): '):
        workflow.run(recipes.parse(content), tmp_path / "run", progress=False)


def encoded(count: int = 43) -> Encoding:
    draw = np.random.default_rng(3)
    offsets = np.concatenate([[0], np.cumsum(draw.integers(1, 12, count))]).astype(np.int64)
    tokens = draw.integers(6, len(tiny.vocabulary()), offsets[-1]).astype(np.int32)
    return Encoding(Ragged(tokens, offsets), draw.random((count, 4)) < 0.4)


def adapted_model() -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(11)
    config = tiny.config("bert", num_labels=4, problem_type="multi_label_classification", pad_token_id=0)
    model = AutoModelForSequenceClassification.from_config(config)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], "init_lora_weights": False}
    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **options))


def train_stock(model: Any, encoding: Encoding, folder: Path) -> list[float]:
    """The Trainer with the stock model's own loss."""
    import transformers

    rows = [
        {"input_ids": encoding.tokens.row(row).tolist(), "labels": encoding.targets[row].astype(np.float32).tolist()}
        for row in range(len(encoding))
    ]
    settings = {key: value for key, value in SETTINGS.items() if key != "warmup_ratio"}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        warmup_steps=SETTINGS["warmup_ratio"], **{**settings, "gradient_accumulation_steps": 1},
    )  # fmt: skip
    losses: list[float] = []

    class Recording(transformers.Trainer):
        def training_step(self, *given_: Any, **named: Any) -> torch.Tensor:
            loss = super().training_step(*given_, **named)
            losses.append(float(loss))
            return loss

    collator = transformers.DataCollatorWithPadding(_padding_tokenizer())
    Recording(model=model, args=arguments, train_dataset=rows, data_collator=collator).train()
    return losses


def test_step_by_step_the_loss_is_the_trainers(tmp_path: Path) -> None:
    encoding, task = encoded(), MultiLabelClassification(NAMES)
    ours, theirs = adapted_model(), adapted_model()
    found = train_ours(ours, encoding, tmp_path / "ours", task=task, gradient_accumulation_steps=1)
    expected = train_stock(theirs, encoding, tmp_path / "stock")
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert largest_difference(trained(ours), trained(theirs)) < 1e-5
    swapped = Encoding(encoding.tokens, encoding.targets[:, ::-1].copy())
    other = train_ours(adapted_model(), swapped, tmp_path / "other", task=task, gradient_accumulation_steps=1)
    assert np.abs(np.asarray(other) - expected).max() > 1e-3, "negative control"


@pytest.fixture(scope="module")
def finished(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    content = tiny.recipe(
        models("bert"), SAMPLE.save(folder, 200), training={"num_train_epochs": 15, "learning_rate": 1e-2}
    )
    workflow.run(recipes.parse({**content, "task": TASK}), folder / "run", progress=False)
    return folder / "run"


class TestAnswers:
    def test_an_empty_set_is_an_answer(self, finished: Path) -> None:
        kept = RunDirectory(finished).read_predictions("tuned", "validation")
        assert (~kept.truth.any(axis=1)).any()
        metrics = RunDirectory(finished).read_metrics()
        assert metrics["tuned"]["eval_f1_micro"] > 0.6
        assert "(none)" in {one["label"] for one in metrics["examples"]["fixed"]}

    def test_calibrated_answers_from_the_fitted_thresholds(self, finished: Path, tmp_path: Path) -> None:
        predictor = load_predictor(str(finished))
        texts = [row["text"] for row in SAMPLE.rows(40)]
        plain, calibrated = predictor.predict(texts), load_predictor(str(finished), calibrated=True).predict(texts)
        facts = json.loads((finished / "adapter" / "featherweight.json").read_text())
        for one, other in zip(plain, calibrated, strict=True):
            shares = one["probabilities"]
            assert shares == other["probabilities"]
            assert set(one["labels"]) == {name for name in shares if shares[name] >= 0.5}
            assert set(other["labels"]) == {name for name in shares if shares[name] >= facts["thresholds"][name]}
            assert one["labels"] == sorted(one["labels"], key=lambda name: -shares[name])

    def test_thresholds_of_other_labels_are_not_used(self) -> None:
        kind = LabelSets(NAMES)
        with pytest.raises(ModelError, match="no thresholds were fitted"):
            kind.options("it", {"thresholds": {"joy": 0.5}}, {"calibrated": True})
        with pytest.raises(ConfigError, match="--max-error-rate"):
            kind.options("it", {}, {"max_error_rate": 0.1})

    def test_what_predict_writes_is_what_data_takes(self, finished: Path, cli: Any, tmp_path: Path) -> None:
        """Lists as JSON in CSV, and lists in JSON Lines: both are labels to train on again."""
        rows = SAMPLE.rows(40)
        tiny.save_jsonl(tmp_path / "in.jsonl", rows)
        for suffix in ("csv", "jsonl"):
            ended = cli("predict", finished, "--input", "in.jsonl", "--output", f"out.{suffix}")
            assert ended.returncode == 0, ended.stderr
            section = load_data_section({"train_file": str(tmp_path / f"out.{suffix}"), "label": "prediction"}, TASK)
            task = MultiLabelClassification.of_split(data.load(section)["train"], section)
            assert set(task.answer.names) <= {"neg", "pos", "both"}
        shown = cli("predict", finished, "--text", rows[3]["text"], "--text", rows[0]["text"])
        assert "neg" in shown.stdout
        assert "(none)" in shown.stdout

    def test_stock_lines_of_the_card_name_the_labels(self, finished: Path) -> None:
        card = (finished / "adapter" / "README.md").read_text(encoding="utf-8")
        code = card.partition("```python\n")[2].partition("```")[0]
        code = code.replace("path/to/this/folder", str(finished / "adapter"))
        names: dict[str, Any] = {}
        exec(code, names)
        texts = [row["text"] for row in SAMPLE.rows(6)]
        inputs = names["tokenizer"](texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            said = names["fitting"](names["model"](**inputs).logits)
        ours = load_predictor(str(finished)).predict(texts)
        assert [set(one) for one in said] == [set(one["labels"]) for one in ours]
        assert 'problem_type="multi_label_classification"' in card.replace("'", '"')

    def test_the_report_and_the_terminal_say_what_labels_need(self, finished: Path) -> None:
        html = (finished / "report.html").read_text(encoding="utf-8")
        for words in ("Each label", "Thresholds", "Labels together", "Rows by how many labels they have", "(none)"):
            assert words in html
        metrics = RunDirectory(finished).read_metrics()
        together = metrics["co_occurrence"]["labels_a_row"]["truth"]
        assert sum(together) == metrics["rows"]["validation"]
        assert together[3] > 0, "rows with neg, pos and both"
