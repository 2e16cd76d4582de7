"""Answers that models write: what measures them, what they are held against, and what tuning made a model forget."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import stock
import tiny
import torch
from conftest import ROOT
from tasks_data import SAMPLES

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.text import TEXT, Text, as_bytes, said
from featherweight.answers.written import QUALITY, Written, in_train, measured
from featherweight.errors import ConfigError, DataError
from featherweight.evidence.baselines.texts import drawn, nearest
from featherweight.evidence.exhibits import Case, Writing
from featherweight.evidence.exhibits.written_answers import WrittenAnswers
from featherweight.evidence.two_models import by_every_statistic, by_headline
from featherweight.inference.predictor import load_predictor
from featherweight.records.dialogues import Dialogue, Turn
from featherweight.records.rows import Examples, Rows
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.sources import general_texts
from featherweight.statistics import overlap
from featherweight.tasks.reading import continuing
from featherweight.workflow import prompting
from featherweight.workflow.preparing import prepare

Models = Callable[[str], Path]

(SAMPLE,) = (one for one in SAMPLES if one.task == "causal-lm")
STORIES = ROOT.parent / "shared" / "models" / "stories260K"
# Text, reference, ROUGE-1, -2, -L and -Lsum by rouge-score 0.1.2, BLEU and chrF by sacrebleu 2.6.0.
KNOWN: list[tuple[str, str, tuple[float, ...], float, float]] = [
    ("The cat sat on the mat.", "The cat was sitting on the mat.",
     (0.7692307692, 0.5454545455, 0.7692307692, 0.7692307692), 42.38365628, 48.50735921),
    ("It's 3.5 miles, roughly 2-3 hours; see (Smith) / x_y.", "It is 3.5 miles: some 2-3 hours, see Smith/x_y!",
     (0.8461538462, 0.6666666667, 0.8461538462, 0.8461538462), 29.74295351, 47.46392868),
    ("First line here.\nThe second one follows the first.", "The second line follows.\nHere is the first one.",
     (0.8888888889, 0.25, 0.5555555556, 0.7777777778), 12.98267945, 61.91500496),
    ("", "Nothing was said.", (0, 0, 0, 0), 0, 0),
    ("the the the the the the the", "the cat", (0.2222222222, 0, 0.2222222222, 0.2222222222), 6.56727474, 13.99969451),
    ("A quick brown fox jumps over the lazy dog", "A quick brown fox jumps over the lazy dog", (1, 1, 1, 1), 100, 100),
    ("1,000 &amp; more", "1,000 & more", (0.8571428571, 0.4, 0.8571428571, 0.8571428571), 0, 56.77546637),
]  # fmt: skip
ALL_BLEU, ALL_CHRF = 39.91369950405379, 57.74389760882768  # of all rows as one corpus
TEXTS, REFERENCES = [one[0] for one in KNOWN], [one[1] for one in KNOWN]


def written(texts: list[str], pattern: str | None = None, references: list[str] = REFERENCES) -> Any:
    found = Text.of_written(texts, [len(text.split()) for text in texts], [True] * len(texts))
    return measured(found, as_bytes(references), pattern)


class TestMeasures:
    def test_they_are_those_of_the_libraries_that_people_use(self) -> None:
        rouge = overlap.rouge(TEXTS, REFERENCES)
        assert np.stack([*rouge.values()], axis=1) == pytest.approx(np.asarray([one[2] for one in KNOWN]), abs=1e-9)
        counts = overlap.bleu_counts(TEXTS, REFERENCES), overlap.chrf_counts(TEXTS, REFERENCES)
        assert overlap.bleu(counts[0]) == pytest.approx(np.asarray([one[3] for one in KNOWN]), abs=1e-7)
        assert overlap.chrf(counts[1]) == pytest.approx(np.asarray([one[4] for one in KNOWN]), abs=1e-7)

    def test_a_corpus_is_no_mean_of_rows(self) -> None:
        answers, truth = written(TEXTS), as_bytes(REFERENCES)
        found = {name: QUALITY[name].of(answers, truth).of_all_rows for name in ("bleu", "chrf", "rougeL")}
        assert found["bleu"] == pytest.approx(ALL_BLEU) and found["chrf"] == pytest.approx(ALL_CHRF)
        assert found["rougeL"] == pytest.approx(np.mean([one[2][2] for one in KNOWN]))
        assert found["bleu"] != pytest.approx(np.mean([one[3] for one in KNOWN]), rel=0.05)

    def test_letters_of_other_scripts_are_words(self) -> None:
        assert overlap.rouge(["Кошка спит"], ["кошка не спит"])["rouge1"][0] == pytest.approx(0.8)

    @pytest.mark.parametrize(
        ("text", "same"), [("so 3+4 is #### 1,234", True), ("#### 7 no, #### 1234.", True), ("#### 7", False),
                           ("1234", False), ("#### 1234 #### 7", False)],
    )  # fmt: skip
    def test_the_last_answer_counts(self, text: str, same: bool) -> None:
        assert overlap.answers_match([text], ["... #### 1234"], re.compile(r"#### (\S+)")).tolist() == [same]

    def test_what_goes_round_in_circles(self) -> None:
        assert overlap.repeated(["and then " * 20, "a b c d e f g", ""]) == pytest.approx([1 - 2 / 37, 0, 0])

    def test_exact_match_has_the_exact_test(self) -> None:
        truth = as_bytes([f"answer {row}" for row in range(30)])
        right = [f"Answer  {row}." if row % 3 else "?" for row in range(30)]
        pair = tuple(written(texts, None, [f"answer {row}" for row in range(30)]) for texts in (["?"] * 30, right))
        kind = Written(("exact_match", "chrf"))
        found = by_headline(kind, pair, truth)
        assert (found["test"], found["fixed"], found["broken"]) == ("mcnemar-exact", 20, 0)
        assert found["verdict"] == "better"
        family = by_every_statistic(kind, pair, truth)
        assert {name: one["verdict"] for name, one in family.items()} == {"exact_match": "better", "chrf": "better"}
        assert by_headline(kind, (pair[1], pair[1]), truth)["verdict"] == "no-difference"

    def test_what_stands_in_train(self) -> None:
        texts = {"tuned": ["The Cat!", "a dog", ""], "truth": ["a bird"]}
        assert in_train(iter(["the cat", "", "a fish"]), texts) == {"tuned": 1 / 3, "truth": 0}

    def test_the_nearest_prompt_answers(self) -> None:
        train = [("where is the film", "here"), ("how dull was it", "very"), ("who made the plot", "nobody")]
        assert nearest(iter(train), ["the dull one", "the plot of who"]) == ["very", "nobody"]
        assert nearest([("!", "one"), ("?", "two")], ["."]) == ["one"]

    def test_a_reply_whichever_is_a_rival(self) -> None:
        replies = [f"r{number}" for number in range(5)]
        found = drawn(iter(replies), 500, seed=1)
        assert set(found) == set(replies) and found == drawn(iter(replies), 500, seed=1) != drawn(replies, 500, seed=2)

    def test_what_is_right_by_chance_alone_is_not_better(self) -> None:
        """The base writes nothing of the kind; the tuned model guesses, or knows. By every statistic alone it is
        better all the same."""
        rng, things = np.random.default_rng(0), ["cat", "dog"]
        truth = [f"a {things[one]}" for one in rng.integers(2, size=60)]
        guesses = [[f"a {things[one]}" for one in rng.integers(2, size=60)] for _ in range(2)]
        rows = Rows(pa.table({"text": [f"what {row}" for row in range(60)]}))
        examples = Examples("validation", rows, ("prompt",), as_bytes(truth), np.arange(60), 0, "here", "")
        verdicts = {}
        for name, tuned in {"guesses": guesses[0], "knows": truth}.items():
            texts = {"random-reply": guesses[1], "base": ["?"] * 60, "tuned": tuned}
            answers = {who: Text.of_written(some, [2] * 60, [True] * 60) for who, some in texts.items()}
            standing = dict.fromkeys([*texts, "truth"], 0.0)
            writing = Writing(examples, examples.truth, answers, ["exact_match"], None, standing)
            case = Case(Text(), examples, answers["base"], answers["tuned"], 0, writing=writing)
            (found,) = WrittenAnswers().find(case).values()
            assert found["paired"]["exact_match"]["verdict"] == "better"
            verdicts[name] = found["comparison"]["verdict"], "withheld" in found["comparison"]
            assert ("drawn at random" in WrittenAnswers().sentence({"written": found})) == (name == "guesses")
        assert verdicts == {"guesses": ("no-difference", True), "knows": ("better", False)}


USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
TALK = (Turn(SYSTEM, "be brief"), Turn(USER, "a"), Turn(ASSISTANT, "b"), Turn(USER, "c"), Turn(ASSISTANT, "d"))


class TestExamplesInThePrompt:
    def test_texts_stand_before_a_text(self) -> None:
        shown = Dialogue("q: a\n", "r: b").behind([Dialogue("q: c\n", "r: d")])
        assert shown == Dialogue("q: c\nr: d\n\nq: a\n", "r: b")

    @pytest.mark.parametrize("row", [Dialogue((), TALK), Dialogue(TALK[:4], TALK[4:])])
    def test_the_system_stays_first_and_the_same_is_learned(self, row: Dialogue) -> None:
        other = Dialogue((Turn(SYSTEM, "no"), Turn(USER, "x")), (Turn(ASSISTANT, "y"),))
        shown = row.behind([other])
        assert [turn.content for turn in shown.turns] == ["be brief", "x", "y", "a", "b", "c", "d"]
        learned = [[one.turns[place] for place in one.replies()] for one in (row, shown)]
        assert learned[0] == learned[1]

    def test_the_last_reply_is_asked_for(self) -> None:
        assert Dialogue((), TALK).opened() == (Dialogue(TALK[:4]), "d")
        assert Dialogue("a", "b").opened() == (Dialogue("a"), "b")

    def test_as_many_as_there_is_room_for(self, models: Models, tmp_path: Path) -> None:
        """The model has 64 positions."""
        rows = [*SAMPLE.rows(40), {"prompt": "film " * 40, "completion": " great"}]
        train = tiny.save_jsonl(tmp_path / "rows.jsonl", rows)
        content = tiny.recipe(models("llama-lm"), train, evaluation={"few_shot": 4}) | {"task": "causal-lm"}
        prepared = prepare(recipes.parse(content), Console(quiet=True))
        for split in ("train", "validation"):
            found = prompting.rows_with_examples(prepared, prepared.examples[split])
            plain = prepared.encodings[split]
            assert plain.reads is not None
            for row, one in enumerate(found):
                assert one.reads is not None
                own = plain.tokens.row(row).tolist()
                learned = [own[place + 1] for place in plain.reads.row(row)]
                assert [one.ids[place + 1] for place in one.reads] == learned
                assert len(own) < len(one.ids) <= 64 or (len(own), len(one.ids)) == (16, 16)


NAMES = ("Tom", "Lily", "Max", "Sue", "Ben", "Mia", "Tim", "Amy")
THINGS = ("ball", "cat", "dog", "tree", "car", "doll", "bird", "box")
ROWS = [
    {"prompt": f"{name} saw a {thing} at the park on day {day}. What was it?", "completion": f" It was a {thing}."}
    for day in range(1, 4) for name in NAMES for thing in THINGS
]  # fmt: skip


def _trained(rows: list[dict[str, str]], folder: Path, **training: Any) -> RunDirectory:
    evaluation = {"generate": True, "max_new_tokens": 10, "max_generate_samples": 16, "answer_pattern": r"a (\w+)"}
    content = tiny.recipe(
        STORIES, tiny.save_jsonl(folder / "rows.jsonl", rows), data={"max_length": 96}, evaluation=evaluation,
        training={"learning_rate": 5e-3, **training},
    )  # fmt: skip
    workflow.run(recipes.parse(content | {"task": "causal-lm"}), folder / "run", progress=False)
    return RunDirectory(folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return _trained(ROWS, tmp_path_factory.mktemp("written"), num_train_epochs=4)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"the pretrained model is not at {STORIES}")
class TestARun:
    def test_what_the_models_write_is_measured_in_pairs(self, run: RunDirectory) -> None:
        found = run.read_metrics()["written"]
        assert found["rows"] == 16
        assert list(found["models"]) == ["random-reply", "nearest-prompt", "few-shot", "base", "tuned"]
        assert list(found["paired"]) == ["answer_match", "exact_match", "rougeL", "chrf"]
        base, tuned = found["models"]["base"], found["models"]["tuned"]
        assert tuned["eval_answer_match"] > base["eval_answer_match"] and found["comparison"]["verdict"] == "better"
        assert found["comparison"]["test"] == "mcnemar-exact"
        assert found["rungs"]["random-reply"]["verdict"] == "better" and "withheld" not in found["comparison"]
        rows = found["examples"]["fixed"]
        assert rows and all(re.search(r"a (\w+)", row["tuned"]).group(1) in row["completion"] for row in rows)  # type: ignore[union-attr]
        assert found["models"]["nearest-prompt"]["eval_in_train"] == 1.0
        assert found["rungs"]["nearest-prompt"]["metric"] == "answer_match"

    def test_stock_libraries_write_the_same(self, run: RunDirectory) -> None:
        """The adapter as it was published, by transformers and PEFT, one prompt by itself: what the run wrote to its
        prompts, and what the predictor writes to 200, in batches."""
        model, tokenizer = stock.by_card(run.path / "adapter")
        ends = continuing.ends(model.get_base_model(), tokenizer)

        def by_stock(prompt: str) -> tuple[str, float]:
            """And by how much the likeliest token is ahead of the next where that is closest."""
            ids = tokenizer(prompt, return_tensors="pt")
            ids.pop("token_type_ids", None)
            with torch.no_grad():
                found = model.generate(
                    **ids, max_new_tokens=10, do_sample=False, output_logits=True, return_dict_in_generate=True
                )
            new = found.sequences[0, ids["input_ids"].shape[1] :].tolist()
            stop = next((index for index, one in enumerate(new) if one in ends), len(new))
            first, second = torch.cat(found.logits).topk(2).values.T
            return str(tokenizer.decode(new[:stop], skip_special_tokens=True)), float((first - second).min())

        more = [f"{name} had a {thing}. {name} was" for name in NAMES[:2] for thing in THINGS[:4]]
        prompts = [*(row["prompt"] for row in ROWS), *more]
        expected, ahead = zip(*map(by_stock, prompts), strict=True)
        kept = run.read_predictions("tuned-written", "validation")
        for place, number in enumerate(kept.ids.tolist()):
            assert said(kept.answers[TEXT], place) == expected[number]
        predictor = load_predictor(run.path, generation={"max_new_tokens": 10})
        assert len(prompts) == 200
        written = [one["text"] for one in predictor.predict(prompts)]
        others = [margin for one, other, margin in zip(written, expected, ahead, strict=True) if one != other]
        assert len(others) <= 2 and all(margin < 1e-3 for margin in others), "but for what rounding decides"
        assert len(set(expected)) > 20, "they are not all the same"

    def test_few_shot_is_a_rung(self, run: RunDirectory) -> None:
        metrics = run.read_metrics()
        shown = metrics["baselines"]["few-shot"]["eval_nll"]
        assert metrics["tuned"]["eval_nll"] < shown < metrics["base"]["eval_nll"]
        assert metrics["rungs"]["few-shot"]["verdict"] == "better"

    def test_what_was_forgotten_is_said(self, run: RunDirectory) -> None:
        found = run.read_metrics()["forgetting"]
        assert found["texts"] == len(general_texts.read(None)) > 30
        assert found["tuned"]["eval_nll"] > found["base"]["eval_nll"] and found["comparison"]["verdict"] == "worse"
        page = (run.path / "report.html").read_text(encoding="utf-8")
        assert "Tuning made the model forget" in page and "Generated answers" in page
        assert "Tuning made the model forget" in (run.path / "adapter" / "README.md").read_text(encoding="utf-8")


def test_what_a_model_writes_is_shown_and_never_obeyed() -> None:
    """Control characters in a page, and on a terminal."""
    from featherweight.report.page import one_curve
    from featherweight.storage.names import on_screen

    assert on_screen("a\x1b[2J\n\tb\0") == "a\\x1b[2J\n\tb\\x00"
    found = {"recipe": "a\0b\x1b", "headline": "<b>\0", "curve": [], "points": [], "law": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featherweight.report.sections.of_curve", lambda found: [])
        page = one_curve(found)
    assert "a\\x00b\\x1b" in page and "\0" not in page and "&lt;b&gt;" in page


class TestRefusals:
    def parse(self, models: Models, tmp_path: Path, task: str = "causal-lm", **evaluation: Any) -> Any:
        train = tiny.save_jsonl(tmp_path / "rows.jsonl", SAMPLE.rows(24))
        return recipes.parse(tiny.recipe(models("llama-lm"), train, evaluation=evaluation) | {"task": task})

    @pytest.mark.parametrize(
        ("evaluation", "problem"),
        [
            ({"answer_pattern": "x"}, "'answer_pattern' is for answers that are written"),
            ({"answer_pattern": "(", "generate": True}, "'answer_pattern' is no regular expression"),
        ],
    )
    def test_patterns(self, evaluation: dict[str, Any], problem: str, models: Models, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=problem):
            self.parse(models, tmp_path, **evaluation)

    def test_tasks_that_write_nothing(self, models: Models, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="evaluation: sequence-classification writes no text"):
            self.parse(models, tmp_path, "sequence-classification", generate=True)
        assert self.parse(models, tmp_path, "sequence-classification", generate=False)

    def test_texts_without_a_prompt(self, models: Models, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "texts.jsonl", [{"text": f"the film {row}"} for row in range(24)])
        content = tiny.recipe(models("llama-lm"), train, evaluation={"generate": True}) | {"task": "causal-lm"}
        with pytest.raises(ConfigError, match=r"evaluation\.generate: the rows are texts without a prompt"):
            prepare(recipes.parse(content), Console(quiet=True))

    def test_a_file_of_texts(self, tmp_path: Path) -> None:
        path = tmp_path / "texts.txt"
        with pytest.raises(DataError, match=r"evaluation\.forgetting_file: .*texts\.txt can't be read"):
            general_texts.read(str(path))
        path.write_text(" \n\n", encoding="utf-8")
        with pytest.raises(DataError, match="holds no text"):
            general_texts.read(str(path))
        path.write_text("one\ntwo\n\n \nthree\n", encoding="utf-8")
        assert general_texts.read(str(path)) == ["one two", "three"]
        before = general_texts.fingerprint(str(path))
        path.write_text("one two\n\nthree!", encoding="utf-8")
        assert general_texts.fingerprint(str(path)) != before


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"the pretrained model is not at {STORIES}")
class TestHeeding:
    def test_a_prompt_that_tells_is_heeded(self, run: RunDirectory) -> None:
        metrics = run.read_metrics()
        found = metrics["heeding"]
        assert found["own"]["eval_nll"] < found["other"]["eval_nll"] and found["comparison"]["verdict"] == "better"
        assert not any("heeds its prompts" in line for line in metrics["training_warnings"])

    def test_completions_that_were_shuffled_are_found_out(self, tmp_path: Path) -> None:
        """The model learns how they look, and so is better than it was; that it answers is not shown."""
        order = np.random.default_rng(0).permutation(192)
        rows = [
            {"prompt": one["prompt"], "completion": ROWS[other]["completion"]}
            for one, other in zip(ROWS, order, strict=True)
        ]
        run = _trained(rows, tmp_path, num_train_epochs=2)
        metrics = run.read_metrics()
        assert metrics["comparison"]["verdict"] == "better"
        assert metrics["heeding"]["comparison"]["verdict"] == "no-difference"
        assert any("not shown that the tuned model heeds its prompts" in one for one in metrics["training_warnings"])
        assert metrics["written"]["comparison"]["verdict"] == "no-difference"
