"""The first sentences and the cautions say what the figures say: every combination, from real pairs of answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pairs
import pytest
import tiny
from pairs import by_accuracy, compare

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import Label
from featherweight.evidence import training_checks
from featherweight.evidence.data import checks
from featherweight.evidence.verdict import headline, of_several
from featherweight.recipe import TrainingSection
from featherweight.report import tables
from featherweight.statistics.proportions import rows_to_tell

N = 200
BEATEN, BETTER = (100, 60, 5), (140, 5, 50)  # rows that both get right, only the tuned model, only the other


def answers(both: int, tuned: int, other: int, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and probabilities of the other model and of the tuned one."""
    order = np.repeat([0, 1, 2, 3], [both, tuned, other, n - both - tuned - other])
    labels = np.arange(n) % 2

    def probabilities(right: np.ndarray) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]

    return labels, probabilities(np.isin(order, [0, 2])), probabilities(np.isin(order, [0, 1]))


def pair(cells: tuple[int, int, int], n: int = N) -> tuple[float, float, dict[str, Any]]:
    """Accuracy of the other, of the tuned one, and their comparison."""
    labels, other, tuned = answers(*cells, n)
    accuracies = [float((one.argmax(axis=1) == labels).mean()) for one in (other, tuned)]
    return accuracies[0], accuracies[1], by_accuracy(other, tuned, labels)


def metrics(base: tuple[int, int, int], rivals: dict[str, tuple[int, int, int]], n: int = N) -> dict[str, Any]:
    before, after, comparison = pair(base, n)
    pairs = {name: pair(cells, n) for name, cells in rivals.items()}
    assert {tuned for _, tuned, _ in pairs.values()} <= {after}, "one tuned model"
    return {
        "base": {"eval_accuracy": before}, "tuned": {"eval_accuracy": after}, "comparison": comparison,
        "baselines": {name: {"eval_accuracy": other} for name, (other, _, _) in pairs.items()},
        "rungs": {name: found for name, (_, _, found) in pairs.items()},
    }  # fmt: skip


# The tuned model is right on 160 rows of 200 throughout.
LOSES, DRAWS, WINS = (70, 90, 10), (150, 10, 14), (155, 5, 40)
AGAINST_BASE = {
    LOSES: "The tuned model is better than the base model (accuracy 0.4000 before, 0.8000 after).",
    DRAWS: "No difference is shown between the tuned model and the base model (accuracy 0.8000 against 0.8200, n = 200; "
    "about 2,400 rows would tell one of this size).",
    WINS: "The tuned model is worse than the base model (accuracy 0.9750 before, 0.8000 after).",
}
AGAINST_RIVALS = {
    (): "",
    (LOSES,): "It is better than every cheaper rival (rival-0 has 0.4000).",
    (DRAWS,): "No difference is shown between the tuned model and rival-0, which is cheaper (accuracy 0.8000 against "
    "0.8200, n = 200; about 2,400 rows would tell one of this size).",
    (WINS,): "rival-0, which is cheaper, is better than the tuned model by 0.1750 of accuracy (0.9750 against 0.8000, "
    "p = 7.9e-08).",
    (LOSES, DRAWS): "No difference is shown between the tuned model and rival-1, which is cheaper (accuracy 0.8000 against "
    "0.8200, n = 200; about 2,400 rows would tell one of this size).",
    (DRAWS, DRAWS): "No difference is shown between the tuned model and rival-0, which is cheaper (accuracy 0.8000 against "
    "0.8200, n = 200; about 2,400 rows would tell one of this size); nor is the tuned model shown to be better than rival-1.",
    (LOSES, DRAWS, WINS): "rival-2, which is cheaper, is better than the tuned model by 0.1750 of accuracy (0.9750 against "
    "0.8000, p = 7.9e-08).",
    (WINS, DRAWS, WINS): "rival-0, which is cheaper, is better than the tuned model by 0.1750 of accuracy (0.9750 against "
    "0.8000, p = 7.9e-08), and so is rival-2.",
}  # fmt: skip


@pytest.mark.parametrize("rivals", AGAINST_RIVALS)
@pytest.mark.parametrize("base", AGAINST_BASE)
def test_row_91_the_headline_says_what_was_shown(
    base: tuple[int, int, int], rivals: tuple[tuple[int, int, int], ...]
) -> None:
    """Against the base model and against cheaper rivals: better, worse, or neither and how many rows would tell."""
    found = headline(metrics(base, {f"rival-{index}": cells for index, cells in enumerate(rivals)}))
    of_base, of_rivals = AGAINST_BASE[base], AGAINST_RIVALS[rivals]
    unbeaten = {DRAWS, WINS} & set(rivals)
    assert found == " ".join(filter(None, (of_rivals, of_base) if unbeaten else (of_base, of_rivals)))


def test_row_91_the_cases_of_the_reports() -> None:
    """0.94 against 0.72 is the rival's win; 0.728 against 0.768 is nobody's."""
    won = headline(
        metrics(
            (
                0,
                36,
                0,
            ),
            {"tfidf": (34, 2, 13)},
            n=50,
        )
    )
    assert won.startswith(
        "tfidf, which is cheaper, is better than the tuned model by 0.2200 of accuracy (0.9400 against 0.7200"
    )
    level = headline(metrics((0, 182, 0), {"tfidf": (160, 22, 32)}, n=250))
    assert level.startswith(
        "No difference is shown between the tuned model and tfidf, which is cheaper (accuracy 0.7280 against 0.7680"
    )
    assert "rows would tell" in level
    for found in (won, level):
        assert "not shown to be worse" not in found
        assert "pay" not in found, "a reader who then reads 'better' would not know what to believe"


def test_row_91_no_number_of_rows_tells_what_is_equal_or_not_independent() -> None:
    assert "would tell" not in headline(metrics((100, 20, 20), {}))
    labels, other, tuned = answers(*DRAWS)
    grouped = by_accuracy(other, tuned, labels, [str(row // 2) for row in range(N)])
    assert "would tell" not in headline({**metrics(DRAWS, {}), "comparison": grouped})


@pytest.mark.parametrize(("fixed", "broken", "n"), [(14, 10, 200), (30, 20, 250), (6, 1, 50)])
def test_row_91_so_many_rows_do_tell_four_times_in_five(fixed: int, broken: int, n: int) -> None:
    """Answers drawn with the shares that were seen; the exact test is a little more careful than the formula."""
    needed = rows_to_tell(fixed, broken, n)
    assert needed is not None
    assert needed > n
    draw = np.random.default_rng(0)

    def share_told(rows: int) -> float:
        told = 0
        for _ in range(300):
            kind = draw.choice(3, size=rows, p=[fixed / n, broken / n, 1 - (fixed + broken) / n])
            told += compare(kind != 0, kind != 1).verdict == "better"
        return told / 300

    assert 0.7 <= share_told(needed) <= 0.88
    assert share_told(needed // 3) < 0.55, "negative control"


def test_row_91_several_runs_are_better_worse_or_not_told_apart() -> None:
    rows = [{"run": name, **pair(cells)[2]} for name, cells in {"b": LOSES, "c": DRAWS, "d": WINS}.items()]
    found = of_several("a", [{**row, "p_value_holm": row["p_value"]} for row in rows], Label)
    assert found == (
        "b (+0.4000) is better than a; d (-0.1750) is worse than a; c (-0.0200; about 2,400 rows would tell one of this "
        "size) is not told apart from a."
    )
    assert of_several("a", [{**rows[0], "p_value_holm": 0.2}], Label) == "b (+0.4000) is not told apart from a.", (
        "adjusted"
    )
    rare = {**rows[0], "verdict": "no-difference", "accuracy_verdict": "better", "p_value_holm": 0.001}
    assert of_several("a", [rare], Label) == ("b is ahead of a in accuracy (+0.4000), but never answers some labels.")


def test_row_91_a_gain_that_gives_up_a_label_is_neither_better_nor_chance() -> None:
    """990 rows of one label and ten of another: always answering the first beats guessing, and is not better."""
    labels = (np.arange(1000) >= 990).astype(int)
    always = np.eye(2, dtype=np.float32)[np.zeros(1000, dtype=int)]
    guesses = np.eye(2, dtype=np.float32)[np.arange(1000) % 2]
    finds = np.eye(2, dtype=np.float32)[np.where(np.arange(1000) < 40, 1 - labels, labels)]

    def against(other: np.ndarray, tuned: np.ndarray, rival: np.ndarray) -> str:
        accuracy = [float((one.argmax(axis=1) == labels).mean()) for one in (other, tuned, rival)]
        return headline({
            "base": {"eval_accuracy": accuracy[0]}, "tuned": {"eval_accuracy": accuracy[1]},
            "comparison": by_accuracy(other, tuned, labels), "rungs": {"majority": by_accuracy(rival, tuned, labels)},
            "baselines": {"majority": {"eval_accuracy": accuracy[2]}},
        })  # fmt: skip

    assert against(guesses, always, guesses) == (
        "The tuned model is ahead of the cheaper majority in accuracy (0.9900 against 0.5000), but never answers "
        "some labels. The tuned model is ahead of the base model in accuracy (0.5000 before, 0.9900 after), but "
        "never answers some labels."
    )
    assert against(guesses, finds, always) == (
        "The tuned model is behind the cheaper majority in accuracy (0.9600 against 0.9900), which never "
        "answers some labels. The tuned model is better than the base model (accuracy 0.5000 before, 0.9600 after)."
    )


def cautions(predictions: list[int], losses: list[float], steps: int = 1000, **training: Any) -> list[str]:
    settings = TrainingSection(**{"learning_rate": 4e-4, **training}).model_dump()
    labels = np.arange(12) % 4
    said = np.eye(4, dtype=np.float32)[np.asarray(predictions)]
    of_answers = Label(["a", "b", "c", "d e"]).cautions("validation", pairs.answers(said), labels)
    return of_answers + training_checks.warnings(losses, steps, settings)


def test_row_92_what_a_training_lacked_is_said_with_the_setting_that_changes_it() -> None:
    every = list(range(4)) * 3
    assert cautions(every, [1.0, 0.8, 0.81]) == []
    assert cautions(every, [1.0]) == []
    assert cautions(every, [1.0, 0.8, 0.799]) == [], "negative control: it wavers"
    (never,) = cautions([0, 1] * 6, [0.5, 0.6])
    assert never == (
        "The tuned model never answers 2 of the 4 labels of validation, which 6 of its 12 rows have: 'c' (3), 'd e' (3); "
        "read macro-F1."
    )
    (improved,) = cautions(every, [1.0, 0.8, 0.7])
    assert "0.8000, then 0.7000" in improved
    assert "training.num_train_epochs (now 3)" in improved
    assert "training.learning_rate (now 0.0004)" in improved
    (few,) = cautions(every, [1.0, 1.1], steps=54)
    assert few == (
        "Only 54 optimizer steps were made: try a larger training.num_train_epochs (now 3), or a smaller "
        "training.per_device_train_batch_size (now 32)."
    )
    (few,) = cautions(every, [1.0, 1.1], steps=54, max_steps=54, gradient_accumulation_steps=4)
    assert "training.max_steps (now 54)" in few
    assert "training.gradient_accumulation_steps (now 4)" in few
    (few,) = cautions(every, [1.0, 1.1], steps=54, per_device_train_batch_size=1)
    assert "smaller" not in few


def test_row_92_a_training_that_taught_nothing_or_too_little_is_said_with_what_helps() -> None:
    def lines(given: bool = True, trained: tuple[float, float] = (0.3, 0.69), ahead: Sequence[str] = ()) -> list[str]:
        settings = TrainingSection(learning_rate=2e-5).model_dump()
        return training_checks.warnings([1.0, 0.9], 1000, settings, trained=trained, ahead=ahead, rate_is_given=given)

    (nothing,) = lines(trained=(0.68, 0.69), ahead=["linear-probe"])
    assert nothing == (
        "Training hardly learned anything (its loss ended at 0.6800; that of answering without a look at the text is "
        "0.6900): leave training.learning_rate (now 2e-05) and what goes with it out, and they are chosen for the data."
    )
    behind = lines(ahead=["linear-probe", "tfidf-logistic-regression"])[-1]
    assert behind.startswith("The tuned model ends behind linear-probe, which is cheaper: leave training.learning_rate")
    chosen = lines(given=False, ahead=["linear-probe"])[-1]
    assert "try a larger training.num_train_epochs (now 3)" in chosen
    assert "learning_rate" not in chosen, "it was left out already"
    assert not any("behind" in line or "hardly" in line for line in lines()), "negative control"


def test_row_92_many_labels_are_counted_and_not_listed() -> None:
    labels = np.arange(300) % 100
    said = np.eye(100, dtype=np.float32)[np.zeros(300, dtype=int)]
    (line,) = pairs.kind(said).cautions("test", pairs.answers(said), labels)
    assert "99 of the 100 labels" in line
    assert line.count("label ") == 5
    assert "and 94 more" in line


def findings(**found: Any) -> dict[str, Any]:
    """What the checks of the data found: nothing but what is given."""
    nothing = {
        "splits": {}, "unknown_labels": {}, "twins": {}, "shared_groups": {}, "conflicting_labels": {"rows": 0},
        "giveaways": {"identifier": False, "words": [], "columns": {}},
    }  # fmt: skip
    return nothing | found


def test_row_92_an_unbalanced_set_is_said_once_for_all_splits() -> None:
    one_sided = {"train": {"label": "ham", "share": 0.93}, "validation": {"label": "ham", "share": 0.95}}
    (line,) = checks.warnings(Label, findings(one_sided=one_sided))
    assert line.startswith("93.0% of train, 95.0% of validation rows are 'ham'")
    assert "macro-F1" in line
    assert len(checks.warnings(Label, findings(one_sided={}))) == 0, "negative control"


def test_row_97_the_senses_of_twins_add_up_to_all_of_them() -> None:
    found = findings(twins={"validation": {"rows": 240, "exact": 4, "normalised": 10, "near": 30}})
    (line,) = checks.warnings(Label, found)
    total, rows, *parts = map(int, re.findall(r"\d+", line))
    assert (total, rows) == (30, 240)
    assert sum(parts) == total
    assert "20 nearly" in line


def test_row_92_cautions_reach_every_place_that_people_read(
    models: Callable[[str], Path], train_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from featherweight.report.console import Console

    content = tiny.recipe(
        models("bert"), train_csv, training={"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
    )
    record = workflow.run(recipes.parse(content), tmp_path / "run", console=Console())
    (few,) = [line for line in record.metrics["training_warnings"] if "4 optimizer steps" in line]
    told = capsys.readouterr().out
    report = (tmp_path / "run" / "report.html").read_text()
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    for place in (told, report, card.replace("\\", "")):
        flat = " ".join(place.split())
        assert few in flat
        assert record.metrics["headline"] in flat
    assert record.metrics["headline"] in record._repr_html_()
    assert few in tables.cautions(record.metrics)
    assert told.splitlines()[-1].strip() == tables.predict_command(tmp_path / "run", record.metrics), "to be copied"
    assert record.metrics["text_to_try"] in train_csv.read_text()
    without = {key: value for key, value in record.metrics.items() if key != "training_warnings"}
    assert tables.cautions(without) == record.metrics["data_checks"]["warnings"], "runs of before"
