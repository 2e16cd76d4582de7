"""What training lowers: weights, smoothed labels, focal loss and Huber's, held to torch and to the Trainer."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tasks_data import SAMPLES, Sample
from test_trainer_equivalence import SETTINGS, _padding_tokenizer, largest_difference, train_ours, trained
from test_trainer_equivalence import make_encoding as encoded
from test_trainer_equivalence import make_model as adapted
from torch.nn import functional

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers import headline
from featherweight.answers.number import Number
from featherweight.answers.tags import TAGS
from featherweight.engine import Lowered
from featherweight.errors import ConfigError
from featherweight.recipe import TrainingSection
from featherweight.records.answers import Answers
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Ragged
from featherweight.registry import ANSWERS
from featherweight.runs.directory import RunDirectory
from featherweight.statistics import paired
from featherweight.tasks import losses
from featherweight.tasks.multi_label_classification import MultiLabelClassification
from featherweight.tasks.regression import Regression
from featherweight.tasks.sequence_classification import SequenceClassification

Models = Callable[[str], Path]
NAMES = ("a", "b", "c")
COUNTS = np.asarray([90, 9, 1])


class Train:
    """As much of a split's examples as an objective looks at."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth


def outputs(rows: int = 17, width: int = 3, seed: int = 0) -> Outputs:
    values = 3 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return Outputs(values, torch.arange(rows + 1))


def targets(rows: int = 17) -> torch.Tensor:
    return torch.randint(0, 3, (rows,), generator=torch.Generator().manual_seed(1))


def of_classes(**asked: Any) -> losses.Objective:
    truth = np.repeat(np.arange(3), COUNTS)
    return SequenceClassification(NAMES).objective(TrainingSection(**asked), Train(truth))  # type: ignore[arg-type]


class TestOfClasses:
    def test_without_a_wish_it_is_the_tasks_own(self) -> None:
        for asked in ({}, {"loss": "cross-entropy"}, {"loss": "focal", "focal_gamma": 0.0}):
            assert of_classes(**asked).is_own
        assert not of_classes(label_smoothing_factor=0.1).is_own

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
    @pytest.mark.parametrize("weights", [None, {"c": 7.0, "a": 0.5}, "auto"])
    def test_weights_and_smoothing_are_torchs(self, smoothing: float, weights: Any) -> None:
        found = of_classes(class_weights=weights, label_smoothing_factor=smoothing).loss(outputs(), targets())
        known = 100 / (3 * COUNTS) if weights == "auto" else weights and [0.5, 1, 7]
        expected = functional.cross_entropy(
            outputs().values,
            targets(),
            weight=None if known is None else torch.tensor(np.asarray(known, dtype=np.float32)),
            label_smoothing=smoothing,
            reduction="none",
        ).sum()
        assert float(found) == pytest.approx(float(expected), rel=1e-5)

    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
    def test_focal_is_the_papers(self, gamma: float) -> None:
        found = of_classes(loss="focal", focal_gamma=gamma, class_weights={"b": 3.0}).loss(outputs(), targets())
        shares = outputs().values.softmax(dim=1)[torch.arange(17), targets()]
        weights = torch.tensor([1.0, 3.0, 1.0])[targets()]
        expected = (-weights * (1 - shares) ** gamma * shares.log()).sum()
        assert float(found) == pytest.approx(float(expected), rel=1e-4)

    def test_what_is_sure_and_right_has_a_finite_slope(self) -> None:
        sure = torch.tensor([[60.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
        for gamma in (0.5, 2.0):
            loss = of_classes(loss="focal", focal_gamma=gamma).loss(
                Outputs(sure, torch.arange(3)), torch.tensor([0, 1])
            )
            (slope,) = torch.autograd.grad(loss, sure)
            assert bool(slope.isfinite().all())

    def test_balanced_weights_are_1_on_average(self) -> None:
        """So that a rate that suits the plain loss suits the weighted one."""
        logits = Outputs(torch.zeros(100, 3), torch.arange(101))
        truth = torch.tensor(np.repeat(np.arange(3), COUNTS))
        assert float(of_classes(class_weights="auto").loss(logits, truth)) == pytest.approx(100 * np.log(3), rel=1e-5)

    def test_words_that_were_cut_off_have_no_part(self) -> None:
        seen = torch.tensor([True] * 10 + [False] * 7)
        found = of_classes(loss="focal").loss(Outputs(outputs().values, outputs().ends, seen), targets())
        some = Outputs(outputs().values[:10], torch.arange(11))
        assert float(found) == pytest.approx(float(of_classes(loss="focal").loss(some, targets()[:10])), rel=1e-5)


class TestOfSets:
    truth = np.random.default_rng(0).random((40, 3)) < [0.5, 0.2, 0.0]

    def objective(self, **asked: Any) -> losses.Objective:
        task = MultiLabelClassification(NAMES)
        return task.objective(TrainingSection(**asked), Train(self.truth))  # type: ignore[arg-type]

    @pytest.mark.parametrize("weights", [{"b": 4.0}, "auto"])
    def test_weights_are_torchs(self, weights: Any) -> None:
        some = torch.tensor(self.truth[:17])
        yes = self.truth.sum(axis=0)
        auto = np.minimum((40 - yes) / np.maximum(yes, 1), 100)
        known = torch.tensor(np.asarray(auto if weights == "auto" else [1, 4, 1], dtype=np.float32))
        expected = functional.binary_cross_entropy_with_logits(
            outputs().values, some.float(), pos_weight=known, reduction="none"
        )
        found = self.objective(class_weights=weights).loss(outputs(), some)
        assert float(found) == pytest.approx(float(expected.mean(dim=1).sum()), rel=1e-5)

    def test_focal_is_the_papers(self) -> None:
        some = torch.tensor(self.truth[:17])
        shares = torch.where(some, outputs().values.sigmoid(), 1 - outputs().values.sigmoid())
        expected = (-((1 - shares) ** 2) * shares.log()).mean(dim=1).sum()
        assert float(self.objective(loss="focal").loss(outputs(), some)) == pytest.approx(float(expected), rel=1e-4)

    def test_smoothing_moves_both_ends(self) -> None:
        some = torch.tensor(self.truth[:17])
        expected = functional.binary_cross_entropy_with_logits(outputs().values, some * 0.8 + 0.1, reduction="none")
        found = self.objective(label_smoothing_factor=0.2).loss(outputs(), some)
        assert float(found) == pytest.approx(float(expected.mean(dim=1).sum()), rel=1e-5)


def test_huber_is_torchs_in_standard_deviations() -> None:
    task = Regression(Number(40.0, 12.0))
    wanted = torch.tensor(np.random.default_rng(0).normal(40, 30, 17))
    found = task.objective(TrainingSection(loss="huber"), Train(np.zeros(1))).loss(outputs(width=1), wanted)  # type: ignore[arg-type]
    expected = functional.huber_loss(outputs(width=1).values[:, 0], ((wanted - 40) / 12).float(), reduction="sum")
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "asked", "named"),
    [
        (SequenceClassification(NAMES), {"loss": "fokal"}, r"training.loss: .*did you mean 'focal'.*cross-entropy"),
        (SequenceClassification(NAMES), {"class_weights": {"B": 2.0}}, r"training.class_weights: 'B' is no label"),
        (Regression(Number(0, 1)), {"class_weights": "auto"}, "training.class_weights: this task has no classes"),
        (Regression(Number(0, 1)), {"label_smoothing_factor": 0.1}, "training.label_smoothing_factor"),
        (Regression(Number(0, 1)), {"loss": "focal"}, "training.loss: .*known: mse, huber"),
    ],
)
def test_what_a_task_does_not_have_is_refused(task: Any, asked: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        task.objective(TrainingSection(**asked), Train(np.asarray([0, 1, 2])))


def test_step_by_step_smoothing_is_the_trainers(tmp_path: Path) -> None:
    import transformers

    encoding = encoded()
    ours, theirs = adapted("bert"), adapted("bert")

    task, asked = SequenceClassification(("neg", "pos")), TrainingSection(label_smoothing_factor=0.1)
    objective = task.objective(asked, Train(np.asarray([0, 1])))  # type: ignore[arg-type]
    smoothed = Lowered(task.answer, objective.loss)
    found = train_ours(ours, encoding, tmp_path / "ours", task=smoothed, gradient_accumulation_steps=1)
    rows = [
        {"input_ids": encoding.tokens.row(row).tolist(), "labels": int(encoding.targets[row])}
        for row in range(len(encoding))
    ]
    settings = {key: value for key, value in SETTINGS.items() if key != "warmup_ratio"}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        warmup_steps=SETTINGS["warmup_ratio"], label_smoothing_factor=0.1,
        **{**settings, "gradient_accumulation_steps": 1},
    )  # fmt: skip
    expected: list[float] = []

    class Recording(transformers.Trainer):
        def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
            expected.append(float(loss := super().training_step(*given, **named)))
            return loss

    collator = transformers.DataCollatorWithPadding(_padding_tokenizer())
    Recording(model=theirs, args=arguments, train_dataset=rows, data_collator=collator).train()
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert largest_difference(trained(ours), trained(theirs)) < 1e-5
    plain = train_ours(adapted("bert"), encoding, tmp_path / "plain", gradient_accumulation_steps=1)
    assert np.abs(np.asarray(plain) - expected).max() > 1e-3, "negative control"


def test_clipping_does_not_undo_the_weights(tmp_path: Path) -> None:
    """Of a class that few steps hold: were each step's gradient cut to one size, they would count no more than others,
    whatever the weight."""
    encoding, task = encoded(), SequenceClassification(("neg", "pos"))
    rare = np.asarray(encoding.targets) * 0
    rare[::9] = 1
    encoding = replace(encoding, targets=rare)
    objective = task.objective(TrainingSection(class_weights="auto"), Train(rare))  # type: ignore[arg-type]
    shares = {}
    for name, weight in {"with": objective.weight, "without": None}.items():
        model = adapted("bert")
        weighted = Lowered(task.answer, objective.loss, weight)
        asked = {"gradient_accumulation_steps": 1, "num_train_epochs": 12.0, "max_grad_norm": 0.02, "weight_decay": 0.0}
        train_ours(model, encoding, tmp_path / name, task=weighted, **asked)
        with torch.no_grad():
            found = [
                float(model(input_ids=torch.tensor([encoding.tokens.row(row).tolist()])).logits.softmax(-1)[0, 1])
                for row in range(len(encoding))
            ]
        shares[name] = float(np.mean(found))
    assert shares["without"] + 0.05 < shares["with"], shares


def test_evaluations_have_the_plain_loss_and_the_rare_label_comes_first(models: Models, tmp_path: Path) -> None:
    """95:5, where the weighted run finds rare rows; the headline begins with what accuracy hides."""
    draw = random.Random(0)
    rows = []
    for index in range(1000):
        rare = index % 20 == 0
        words = [*draw.choices(tiny.PLAIN, k=4), draw.choice(tiny.GOOD if rare else tiny.BAD), str(index)]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": "rare" if rare else "common"})
    train = tiny.save_csv(tmp_path / "t.csv", rows)
    found = {}
    for name, more in {"plain": {}, "weighted": {"class_weights": "auto"}}.items():
        training = {"num_train_epochs": 8, "learning_rate": 1e-2, "per_device_train_batch_size": 16, **more}
        content = tiny.recipe(models("bert"), train, data={"validation_fraction": 0.4}, training=training)
        workflow.run(recipes.parse(content), tmp_path / name, progress=False)
        found[name] = RunDirectory(tmp_path / name).read_metrics()
        assert found[name]["headline"].startswith("95.0% of the validation rows are 'common', so read macro-F1: ")
        assert any("class_weights" in line for line in found[name]["data_checks"]["warnings"])
    assert found["weighted"]["tuned"]["eval_balanced_accuracy"] > found["plain"]["tuned"]["eval_balanced_accuracy"]
    chosen = recipes.load(tmp_path / "weighted" / "recipe.toml").training.metric_for_best_model
    assert chosen == "eval_macro_f1", "the plain loss would choose the checkpoint that minds the rare label least"
    kept = RunDirectory(tmp_path / "weighted").read_predictions("tuned", "validation")
    shares = kept.answers["probabilities"][np.arange(len(kept.truth)), kept.truth]
    assert found["weighted"]["tuned"]["eval_loss"] == pytest.approx(float(-np.log(shares).mean()), rel=1e-4)


def test_unfinished_runs_of_before_go_on(models: Models, train_csv: Path) -> None:
    """What a recipe could not say then is no change of the run, unless it is said now."""
    from featherweight.report.console import Console
    from featherweight.workflow.preparing import _LATER, prepare

    plain = prepare(recipes.parse(tiny.recipe(models("bert"), train_csv)), Console(quiet=True)).identity()
    assert not set(_LATER) & set(plain)
    asked = {"training": {"label_smoothing_factor": 0.1, "optim": "sgd"}, "data": {"long_texts": "head-tail"}}
    said = prepare(recipes.parse(tiny.recipe(models("bert"), train_csv, **asked)), Console(quiet=True)).identity()
    assert {key for key in said if said[key] != plain.get(key)} == {
        "training.label_smoothing_factor", "training.optim", "data.long_texts",
    }  # fmt: skip


def mixed(sample: Sample, seed: int, count: int = 96) -> list[dict[str, Any]]:
    """Rows with the truth of others; of tags each word's with that of any other. (Of its own row would not do: which
    tags a row has tells of its words.)"""
    rows, draw = sample.rows(count), random.Random(seed)
    (key,) = {"ner_tags", "labels", "label"} & {*rows[0]}
    truth = [row[key] for row in rows]
    if key == "ner_tags":
        pool = [tag for row in truth for tag in row]
        draw.shuffle(pool)
        truth = [[pool.pop() for _ in row] for row in truth]
    else:
        draw.shuffle(truth)
    return [{**row, key: one} for row, one in zip(rows, truth, strict=True)]


def against_commonest(run: Path, rows: list[dict[str, Any]]) -> str:
    """The verdict on tags beside the commonest of the rows for every word. The rival that there is looks at the word, and
    takes chance for what it knows of it: beside that, nothing is better."""
    found = RunDirectory(run).read_predictions("tuned", "validation")
    words = Counter(tag for row in rows for tag in row["ner_tags"])
    commonest = found.kind.names.index(max(words, key=words.__getitem__))
    tags = found.answers.columns[TAGS]
    constant = Answers({**found.answers.columns, TAGS: Ragged(np.full_like(tags.values, commonest), tags.offsets)})
    statistic = headline(found.kind)
    pair = (statistic.of(constant, found.truth), statistic.of(found.answers, found.truth))
    return paired.compare(statistic.name, pair).verdict


LOSSES: list[dict[str, Any]] = [{}, {"loss": "focal"}, {"class_weights": "auto"}, {"label_smoothing_factor": 0.1}]
TASKS_AND_LOSSES = [
    pytest.param(sample, asked, id=f"{sample.kind} {next(iter(asked), 'plain')}")
    for sample in SAMPLES
    if sample.kind in {"label", "labels", "number", "tags", "plain-tags"} and not sample.form
    for asked in ([{}, {"loss": "huber"}] if sample.kind == "number" else LOSSES)
    if not (sample.kind == "tags" and "class_weights" in asked)  # F1 of entities pays for answering any at all
]
SEEDS = int(os.environ.get("FEATHERWEIGHT_SEEDS", "1"))  # 20 prove more, and take a quarter of an hour


@pytest.mark.slow
@pytest.mark.parametrize(("sample", "asked"), TASKS_AND_LOSSES)
def test_shuffled_truth_shows_no_difference(
    sample: Sample, asked: dict[str, Any], models: Models, tmp_path: Path
) -> None:
    """Of chance nothing can be learned but the truth's shares, which the rival that looks at no text knows too."""
    rival = ANSWERS[sample.kind].knows_nothing[0]
    verdicts = []
    for seed in range(SEEDS):
        rows = mixed(sample, seed)
        train = tiny.save_jsonl(tmp_path / f"{seed}.jsonl", rows)
        training = {"num_train_epochs": 3, "learning_rate": 5e-3, "seed": seed, **asked}
        content = tiny.recipe(models("bert"), train, data={"validation_fraction": 0.5}, training=training)
        content |= {"task": sample.task, "evidence": {"baselines": [rival]}}
        metrics = workflow.run(recipes.parse(content), tmp_path / str(seed), progress=False).metrics
        of_tags = sample.kind == "plain-tags"
        verdicts.append(
            against_commonest(tmp_path / str(seed), rows) if of_tags else metrics["rungs"][rival]["verdict"]
        )
    assert verdicts.count("better") <= SEEDS // 20, verdicts
    if not asked and sample.kind in {"label", "number"}:
        train = sample.save(tmp_path, 400)
        training = {"num_train_epochs": 10, "learning_rate": 1e-2}
        content = tiny.recipe(models("bert"), train, data={"validation_fraction": 0.5}, training=training)
        content |= {"task": sample.task, "evidence": {"baselines": [rival]}}
        metrics = workflow.run(recipes.parse(content), tmp_path / "true", progress=False).metrics
        assert metrics["rungs"][rival]["verdict"] == "better", "negative control"
