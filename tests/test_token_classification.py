"""Token classification: tags of words, the entities that they make up, and the characters that these are."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import serving
import stock
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_run import RESUMED, files_of, stopped_and_resumed
from test_trainer_equivalence import SETTINGS, largest_difference, train_ours, trained

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers import entities
from featherweight.answers.tags import SCORES, TAGS, UNSAID, PlainTags, Tags
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.packed import Packed
from featherweight.engine.running.padded import Padded
from featherweight.errors import ConfigError, DataError
from featherweight.evidence.exhibits.entity_errors import _errors
from featherweight.evidence.exhibits.marked_examples import marked
from featherweight.inference.predictor import load_predictor
from featherweight.records.answers import Answers
from featherweight.records.cutting import Cutting
from featherweight.records.questions import Question
from featherweight.records.rows import UNSEEN, Encoding, Ragged, Split
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.tasks.reading import tags as reading
from featherweight.tasks.reading import tokens
from featherweight.tasks.reading import words as wording
from featherweight.tasks.token_classification import TokenClassification

Models = Callable[[str], Path]
Row = dict[str, Any]
SHARED = Path(__file__).parents[2] / "shared" / "data"
KIND = Tags(entities.tags_of(["bad", "good"]))
SECOND = {"good": "with", "bad": "very"}  # words that only go on with an entity
OF_ENTITIES = {one.name: one for one in Tags.statistics}
OF_TAGS = {one.name: one for one in PlainTags.statistics}
ASKED = ["great film", "", ["awful", "New York", "superb"], {"tokens": ["the", "film", "boring"]}, "the story, superb!"]


def rows(count: int, seed: int = 0) -> list[Row]:
    """Sentences with entities of one or two words, each word of which tells its tag."""
    draw = random.Random(seed)
    plain = [word for word in tiny.PLAIN if word not in SECOND.values()]
    made = []
    for _ in range(count):
        words, tags = [], []
        for kind in draw.choices(["plain", "good", "bad"], [3, 1, 1], k=draw.randint(2, 8)):
            if kind == "plain":
                words, tags = [*words, draw.choice(plain)], [*tags, "O"]
                continue
            chosen = [draw.choice(tiny.GOOD if kind == "good" else tiny.BAD), SECOND[kind]][: draw.randint(1, 2)]
            words, tags = words + chosen, tags + [f"B-{kind}", f"I-{kind}"][: len(chosen)]
        made.append({"tokens": words, "ner_tags": tags})
    return made


def save_telling(folder: Path, kind: str = "bert") -> Path:
    """A tiny model whose hidden states tell the word that they are of, as random ones of the usual size do."""
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(tiny.config(kind, 0.1)).save_pretrained(folder)
    tiny.tokenizer(kind).save_pretrained(folder)
    return folder


def recipe(model: Path, train: Path, **sections: Any) -> dict[str, Any]:
    return tiny.recipe(model, train, **sections) | {"task": "token-classification"}


def run(content: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    return workflow.run(recipes.parse(content), folder, progress=False, **options).metrics


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model``, ``train.jsonl`` and the finished ``run``, which has learned something."""
    folder = tmp_path_factory.mktemp("tags")
    model = save_telling(folder / "model")
    train = tiny.save_jsonl(folder / "train.jsonl", rows(240))
    run(recipe(model, train, training={"num_train_epochs": 5, "learning_rate": 2e-2}), folder / "run")
    return folder


@pytest.fixture(scope="module")
def finished(made: Path) -> Path:
    return made / "run"


def answers(tags: Sequence[Sequence[int]]) -> Answers:
    found = Ragged.of(tags, np.int32)
    return Answers({TAGS: found, SCORES: Ragged(np.ones(len(found.values), dtype=np.float32), found.offsets)})


@st.composite
def two_taggings(draw: st.DrawFn, tags: int = 7) -> tuple[list[list[int]], list[list[int]]]:
    """Found and true tags of some rows, of which most are alike."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    tag = st.integers(0, tags - 1)
    true = [draw(st.lists(tag, min_size=length, max_size=length)) for length in lengths]
    found = [[one if draw(st.integers(0, 3)) else draw(tag) for one in row] for row in true]
    return found, true


NAMES = entities.tags_of(["LOC", "ORG", "PER"])


def by_seqeval(found: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> dict[str, Any]:
    import warnings

    from seqeval import metrics
    from seqeval.scheme import IOB2

    named = [[[NAMES[one] for one in row] for row in rows] for rows in (true, found)]
    strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "f1": metrics.f1_score(*named, **strict),
            "precision": metrics.precision_score(*named, **strict),
            "recall": metrics.recall_score(*named, **strict),
            "accuracy": metrics.accuracy_score(*named),
            "report": metrics.classification_report(*named, **strict, output_dict=True),
        }


class TestFigures:
    @given(two_taggings())
    def test_they_are_seqevals(self, pair: tuple[list[list[int]], list[list[int]]]) -> None:
        pytest.importorskip("seqeval")
        found, true = pair
        truth = Ragged.of(true, np.int32)
        expected = by_seqeval(found, true)
        for name in ("f1", "precision", "recall", "accuracy"):
            assert OF_ENTITIES[name].of(answers(found), truth).of_all_rows == pytest.approx(expected[name], abs=1e-9)
        report = Tags(NAMES).details(answers(found), truth)["entities"]
        for kind, one in report.items():
            theirs = expected["report"].get(kind, {"precision": 0, "recall": 0, "f1-score": 0, "support": 0})
            assert one["support"] == theirs["support"]
            for ours, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
                assert one[ours] == pytest.approx(theirs[name], abs=1e-9), (kind, ours)

    @given(two_taggings(), st.data())
    def test_of_some_rows_too(self, pair: tuple[list[list[int]], list[list[int]]], drawn: st.DataObject) -> None:
        pytest.importorskip("seqeval")
        found, true = pair
        chosen = drawn.draw(st.lists(st.integers(0, len(true) - 1), min_size=1, max_size=15))
        expected = by_seqeval([found[row] for row in chosen], [true[row] for row in chosen])
        for name in ("f1", "precision", "recall", "accuracy"):
            some = OF_ENTITIES[name].of(answers(found), Ragged.of(true, np.int32)).select(np.asarray(chosen))
            assert some.of_all_rows == pytest.approx(expected[name], abs=1e-9)
        right = [found[row] == true[row] for row in chosen]
        whole = OF_ENTITIES["exact_match"].of(answers(found), Ragged.of(true, np.int32)).select(np.asarray(chosen))
        assert whole.of_all_rows == pytest.approx(np.mean(right))
        assert whole.outcomes is not None, "so that an exact test is made of it"

    def test_strict_is_not_what_conlleval_does(self) -> None:
        """An entity that begins with I- is none, and rows never go on from one another."""
        assert len(entities.find(Ragged.of([[2, 2, 0], [1, 4, 2]]))) == 1
        both = entities.find(Ragged.of([[1, 2], [2, 1, 2, 1]]))
        assert [both.within(row) for row in (0, 1)] == [[(0, 2, 0)], [(3, 5, 0), (5, 6, 0)]]
        assert len(entities.find(Ragged.of([[], []]))) == 0

    @given(two_taggings())
    def test_plain_tags_are_measured_as_labels_of_words(self, pair: tuple[list[list[int]], list[list[int]]]) -> None:
        from sklearn.metrics import accuracy_score, f1_score

        found, true = pair
        flat = [[one for row in rows for one in row] for rows in pair]
        truth = Ragged.of(true, np.int32)
        accuracy = OF_TAGS["accuracy"].of(answers(found), truth).of_all_rows
        assert accuracy == pytest.approx(accuracy_score(flat[1], flat[0]), abs=1e-9)
        macro = OF_TAGS["macro_f1"].of(answers(found), truth).of_all_rows
        assert macro == pytest.approx(f1_score(flat[1], flat[0], average="macro", zero_division=0), abs=1e-9)

    def test_words_that_were_not_seen_are_wrong_and_no_entity(self) -> None:
        outputs = np.zeros((3, 3), dtype=np.float32)
        outputs[0, 1], outputs[1], outputs[2, 0] = 9, np.nan, 9
        offsets = np.asarray([0, 3])
        truth = Ragged.of([[1, 1, 0]], np.int32)
        found = Tags(entities.tags_of(["X"])).of_outputs(Ragged(outputs, offsets), {})
        assert found[TAGS].row(0).tolist() == [1, 0, 0]
        assert found[SCORES].row(0)[1] == 0
        assert OF_ENTITIES["recall"].of(found, truth).of_all_rows == 0.5
        plain = PlainTags(["a", "b", "c"]).of_outputs(Ragged(outputs, offsets), {})
        assert plain[TAGS].row(0).tolist() == [1, UNSAID, 0]
        assert OF_TAGS["accuracy"].of(plain, truth).of_all_rows == pytest.approx(2 / 3)
        (reply,) = PlainTags(["a", "b", "c"]).reply(plain, [Question("x y z", [(0, 1), (2, 3), (4, 5)])], {})
        assert [one["tag"] for one in reply["tags"]] == ["b", None, "a"]

    def test_errors_of_entities_are_told_apart(self) -> None:
        names = entities.tags_of(["a", "b"])
        true = [[1, 2, 0], [1, 2, 0], [1, 2, 0], [1, 2, 0], [1, 0, 0], [0, 0, 0]]
        found = [[1, 2, 0], [3, 4, 0], [1, 0, 0], [3, 4, 4], [0, 0, 0], [0, 0, 3]]
        counted = _errors(answers(found), Ragged.of(true, np.int32), entities.types_in(names))
        kinds = ("right", "type", "boundary", "both", "missed", "spurious")
        assert [counted[kind] for kind in kinds] == [1, 1, 1, 1, 1, 1]
        assert counted["confused"] == [{"label": "a", "prediction": "b", "entities": 2}]

    def test_marked_text_closes_what_it_opens(self) -> None:
        assert marked(list("abcd"), ["B-x", "B-x", "I-y", "O"]) == "[a](x) [b](x) [c](y) d"
        assert marked(["a", "b"], ["DT", "DT"]) == "[a](DT) [b](DT)"


def split_of(content: Sequence[Row], folder: Path, ending: str = "jsonl", **section: Any) -> tuple[Split, Any]:
    path = tiny.save_jsonl(folder / f"rows.{ending}", content)
    columns = data.found(TokenClassification.Columns(train_file=str(path), **section))
    return data.load(columns)["train"], columns


def read(content: Sequence[Row], folder: Path, **section: Any) -> reading.TagColumn:
    split, columns = split_of(content, folder, **section)
    return reading.read(split, columns.text, columns.label)


IOB2 = ["B-x", "I-x", "B-x", "O", "B-y", "I-y", "I-y", "B-y", "B-x"]
SCHEMES = {
    "IOB1": ["I-x", "I-x", "B-x", "O", "I-y", "I-y", "I-y", "B-y", "I-x"],
    "IOBES": ["B-x", "E-x", "S-x", "O", "B-y", "I-y", "E-y", "S-y", "S-x"],
    "BILOU": ["B-x", "L-x", "U-x", "O", "B-y", "I-y", "L-y", "U-y", "U-x"],
    "IOB2": IOB2,
}


def written(types: Sequence[str], scheme: str) -> list[str]:
    """Entities of one or more words, ``x`` or ``O`` for each group, in a scheme; an independent writer."""
    tags: list[str] = []
    before = ""
    for one in types:
        name, length = one[0], len(one)
        if name == "O":
            tags += ["O"]
        elif scheme == "IOB1":
            tags += [("B-" if before == name else "I-") + name, *[f"I-{name}"] * (length - 1)]
        elif scheme == "IOBES":
            inner = [f"B-{name}", *[f"I-{name}"] * (length - 2), f"E-{name}"]
            tags += [f"S-{name}"] if length == 1 else inner
        else:
            tags += [f"B-{name}", *[f"I-{name}"] * (length - 1)]
        before = name
    return tags


class TestSchemes:
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_each_is_read_as_iob2_and_said(self, scheme: str, tmp_path: Path) -> None:
        words = [f"w{index}" for index in range(9)]
        column = read([{"tokens": words, "ner_tags": SCHEMES[scheme]}], tmp_path)
        assert column.rows[0].tags == IOB2
        said = {"IOB2": None, "BILOU": "the tags in 'ner_tags' are IOBES and read as IOB2"}
        assert column.said == said.get(scheme, f"the tags in 'ner_tags' are {scheme} and read as IOB2")

    @given(st.lists(st.lists(st.sampled_from(["O", "x", "xx", "xxx", "y", "yy"]), min_size=1), min_size=1, max_size=5))
    def test_round_trips(self, groups: list[list[str]]) -> None:
        from types import SimpleNamespace

        expected = [written(one, "IOB2") for one in groups]
        for scheme in ("IOB1", "IOBES", "IOB2"):
            given_rows = [reading.TaggedRow("", [], written(one, scheme)) for one in groups]
            column = reading.TagColumn(SimpleNamespace(origin=""), given_rows, None)  # type: ignore[arg-type]
            _, found = reading._as_iob2(column)
            assert [row.tags for row in found] == expected, scheme

    @pytest.mark.parametrize(
        ("tags", "said"),
        [
            (["B-x", "O", "I-x"], r"'I-x' follows 'O', which no entity has; one begins with 'B-x'"),
            (["B-y", "I-x", "O"], r"'I-x' follows 'B-y'"),
            (["B-x", "E-x", "I-x"], r"'I-x' can't follow 'E-x' in IOBES"),
            (["B-x", "O", "S-x"], r"'O' can't follow 'B-x' in IOBES"),
            (["S-x", "O", "B-x"], r"'O' can't follow 'B-x' in IOBES"),
            (["B-x", "E-y", "O"], r"'E-y' can't follow 'B-x' in IOBES"),
        ],
    )
    def test_an_impossible_sequence_names_its_row(self, tags: list[str], said: str, tmp_path: Path) -> None:
        good = {
            "tokens": ["a", "b"],
            "ner_tags": ["B-x", "I-x"] if "E-" not in str(tags) and "S-" not in str(tags) else ["S-x", "O"],
        }
        with pytest.raises(DataError, match=said) as caught:
            read([good, {"tokens": ["a", "b", "c"], "ner_tags": tags}], tmp_path)
        assert "rows.jsonl: row 2: " in str(caught.value)

    def test_tags_that_are_no_entities_stay_as_they_are(self, tmp_path: Path) -> None:
        column = read([{"tokens": ["a", "b"], "pos_tags": ["DT", "NN"]}], tmp_path)
        assert column.rows[0].tags == ["DT", "NN"]
        assert not reading.are_entities({"O"}), "one tag alone says nothing of entities"


class TestCells:
    TEXT = "Anna O'Neill went to New York."

    @pytest.mark.parametrize(
        ("column", "spans"),
        [
            ("entities", [{"start": 0, "end": 12, "label": "PER"}, {"start": 21, "end": 29, "label": "LOC"}]),
            ("spans", [{"start": 21, "end": 29, "label": "LOC"}, {"start": 0, "end": 12, "label": "PER"}]),
            ("label", [[0, 12, "PER"], [21, 29, "LOC"]]),
            ("label", [{"start": 0, "end": 12, "text": "Anna O'Neill", "labels": ["PER"]}, {"start": 21, "end": 29, "labels": ["LOC"]}]),
            ("entities", [{"id": 1, "start_offset": 0, "end_offset": 12, "label": "PER"}, {"start_offset": 21, "end_offset": 29, "label": "LOC"}]),
            ("entities", [{"entity_group": "PER", "start": 0, "end": 12}, {"entity_group": "LOC", "start": 21, "end": 29}]),
        ],
    )  # fmt: skip
    def test_entities_by_their_characters(self, column: str, spans: Any, tmp_path: Path) -> None:
        found = read([{"text": self.TEXT, column: spans}, {"text": "nobody", column: []}], tmp_path)
        assert found.rows[0].tags == ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"]
        words = [self.TEXT[start:end] for start, end in found.rows[0].words]
        assert words == ["Anna", "O'Neill", "went", "to", "New", "York", "."]
        assert found.rows[1].tags == ["O"], "no entity is an answer"
        assert found.said is None

    @pytest.mark.parametrize(
        ("spans", "said"),
        [
            ([[0, 12, "PER"], [5, 12, "LOC"]], "the entity 'LOC' from 5 to 12 overlaps another; a word has one tag"),
            ([[0, 2, "PER"], [2, 4, "LOC"]], "overlaps another"),
            ([[0, 99, "PER"]], "the entity 'PER' from 0 to 99 is not within the text of 30 characters"),
            ([[-3, 4, "PER"]], "from -3 to 4 is not within"),
            ([[4, 4, "PER"]], "from 4 to 4 is not within"),
            ([[9, 5, "PER"]], "from 9 to 5 is not within"),
            ([[4, 5, "PER"]], "the entity 'PER' from 4 to 5 holds no word"),
            ([[0, 4]], "an entity has a start, an end and a label"),
            ([{"start": 0, "end": 4}], "an entity has a start, an end and a label"),
            ([{"start": 0, "end": 4, "labels": ["a", "b"]}], "an entity has a start, an end and a label"),
            ([{"start": "0", "end": 4, "label": "PER"}], "an entity has a start, an end and a label"),
            ({"start": 0, "end": 4, "label": "PER"}, "a list of entities with their places in the text was expected"),
        ],
    )
    def test_spans_that_can_not_be_are_refused_by_row(self, spans: Any, said: str, tmp_path: Path) -> None:
        good = {"text": self.TEXT, "entities": [[0, 4, "PER"]]}
        with pytest.raises(DataError, match=said) as caught:
            read([good, good, {"text": self.TEXT, "entities": spans}], tmp_path)
        assert "rows.jsonl: row 3: " in str(caught.value)

    def test_spans_within_a_word_are_widened_and_said(self, tmp_path: Path) -> None:
        content = [{"text": "Annas Haus", "entities": [[0, 4, "PER"]]}, {"text": "Anna", "entities": [[0, 4, "PER"]]}]
        found = read(content, tmp_path)
        assert [row.tags for row in found.rows] == [["B-PER", "O"], ["B-PER"]]
        assert found.said == "1 entities begin or end within a word and are taken as the whole word"

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "2 words and 1 tags; give each word one"),
            ({"tokens": ["a"], "ner_tags": ["O", "O"]}, "1 words and 2 tags"),
            ({"tokens": ["a", 1], "ner_tags": ["O", "O"]}, "a list of words was expected"),
            ({"tokens": ["a", None], "ner_tags": ["O", "O"]}, "a list of words was expected"),
            ({"tokens": ["a", "b"], "ner_tags": ["O", None]}, "a tag is missing"),
            ({"tokens": ["a", "b"], "ner_tags": ["O", ""]}, "a tag is missing"),
            ({"tokens": ["a", "b"], "ner_tags": None}, "no tags in column 'ner_tags'; tag the row or take it out"),
            ({"tokens": {"a": 1}, "ner_tags": ["O"]}, "a list of words was expected|words and .* tags"),
        ],
    )
    def test_words_and_tags_that_do_not_agree_are_refused_by_row(self, row: Row, said: str, tmp_path: Path) -> None:
        good = {"tokens": ["a", "b"], "ner_tags": ["B-x", "O"]}
        with pytest.raises(DataError, match=said) as caught:
            read([good, row, good], tmp_path)
        assert "rows.jsonl: row 2: " in str(caught.value)

    @pytest.mark.parametrize(
        ("words", "tags"), [("tokens", "ner_tags"), ("tokens", "tags"), ("tokens", "pos_tags"), ("words", "tags")]
    )
    def test_usual_columns_are_found(self, words: str, tags: str, tmp_path: Path) -> None:
        _, section = split_of([{"id": 1, words: ["a"], tags: ["B-x"]}], tmp_path)
        assert (section.text, section.label) == (words, tags)

    def test_columns_that_are_named_are_not_looked_for(self, tmp_path: Path) -> None:
        row = {"tokens": ["a"], "ner_tags": ["B-x"], "mine": ["B-y"]}
        assert read([row], tmp_path, label="mine").tags == {"B-y"}
        with pytest.raises(DataError, match=r"no column 'none' for data\.label"):
            read([row], tmp_path, label="none")

    def test_cells_that_are_strings_in_csv(self, tmp_path: Path) -> None:
        content = [
            {"tokens": "New York is big", "tags": "B-LOC I-LOC O O"},
            {"tokens": '["a b", "c"]', "tags": '["O", "O"]'},
        ]
        path = tiny.save_csv(tmp_path / "rows.csv", content)
        section = data.found(TokenClassification.Columns(train_file=str(path)))
        found = reading.read(data.load(section)["train"], section.text, section.label)
        assert [row.tags for row in found.rows] == [["B-LOC", "I-LOC", "O", "O"], ["O", "O"]]
        assert found.rows[1].text == "a b c"
        assert found.rows[1].words == [(0, 3), (4, 5)]

    def test_numbers_that_a_data_set_names(self) -> None:
        import datasets

        names = ["O", "B-PER", "I-PER"]
        features = datasets.Features(
            {"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names))}
        )  # fmt: skip
        content = {"tokens": [["Anna", "May"], ["went"]], "ner_tags": [[1, 2], [0]]}
        split = Split("train", datasets.Dataset.from_dict(content, features=features), "some/set (train)", "0")
        split = data._checked(split, TokenClassification.Columns(name="some/set"))
        found = reading.read(split, "tokens", "ner_tags")
        assert [row.tags for row in found.rows] == [["B-PER", "I-PER"], ["O"]]

    def test_a_number_that_stands_for_no_tag_is_refused(self) -> None:
        """-1 is what data sets have where nobody tagged; it is not the last of the names."""
        names = ["O", "B-PER", "I-PER"]
        for number in (-1, 3):
            with pytest.raises(ValueError, match=f"the tag {number} is none of the 3"):
                reading._tags([0, number], 2, names)


class TestConll:
    @staticmethod
    def rows_of(content: str, folder: Path, ending: str = "conll") -> list[tuple[int, Row]]:
        from featherweight.sources.formats import opened

        path = folder / f"rows.{ending}"
        path.write_text(content, encoding="utf-8")
        with opened(path) as (reader, stream):
            return list(reader.read(stream, str(path)))

    @pytest.mark.parametrize("ending", ["conll", "iob", "iob2", "bio"])
    @pytest.mark.parametrize("separator", ["\t", " ", "   "])
    def test_words_with_a_tag_each(self, separator: str, ending: str, tmp_path: Path) -> None:
        lines = [["Anna", "B-PER"], ["left", "O"], [], [], ["Bye", "O"], ["#", "O"]]
        content = "".join(separator.join(line) + "\n" for line in lines)
        expected = [
            (1, {"tokens": ["Anna", "left"], "ner_tags": ["B-PER", "O"]}),
            (2, {"tokens": ["Bye", "#"], "ner_tags": ["O", "O"]}),
        ]
        assert self.rows_of(content, tmp_path, ending) == expected
        assert self.rows_of(content.replace("\n", "\r\n"), tmp_path, ending) == expected
        assert self.rows_of(content.rstrip("\n"), tmp_path, ending) == expected

    def test_four_columns_documents_and_comments(self, tmp_path: Path) -> None:
        content = (
            "-DOCSTART- -X- -X- O\n\n# sent_id = 1\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n# text = EU rejects this\n"
            "-DOCSTART- -X- O O\n\n# NN B-NP O\n1 CD I-NP O\n"
        )
        (first, second) = (row for _, row in self.rows_of(content, tmp_path))
        assert first == {
            "tokens": ["EU", "rejects"], "pos_tags": ["NNP", "VBZ"], "chunk_tags": ["B-NP", "B-VP"], "ner_tags": ["B-ORG", "O"],
        }  # fmt: skip
        assert second["tokens"] == ["#", "1"], "a word, though comments begin so too"

    def test_other_numbers_of_columns_have_a_word_and_a_tag(self, tmp_path: Path) -> None:
        ((_, row),) = self.rows_of("Wolff B-PER x B-LOC y\n,  O x O y\n".replace("  ", " "), tmp_path)
        assert row == {"tokens": ["Wolff", ","], "ner_tags": ["y", "y"]}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("a\tO\nb\n", "line 2: 1 columns, where the sentence has 2; give each word as many"),
            ("a\n", "line 1: a word without a tag; give each word one"),
            ("a O\n\nb B-x y\nc O\n", "line 4: 2 columns, where the sentence has 3"),
        ],
    )
    def test_lines_that_do_not_agree_are_named(self, content: str, said: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=said):
            self.rows_of(content, tmp_path)

    def test_predictions_are_not_written_so(self, finished: Path, tmp_path: Path) -> None:
        source = tiny.save_jsonl(tmp_path / "in.jsonl", [{"tokens": ["a"]}])
        with pytest.raises(ConfigError, match="not written as CoNLL"):
            load_predictor(finished).predict_file(source, tmp_path / "out.conll")

    def test_a_run_finds_what_is_in_them(self, made: Path, tmp_path: Path) -> None:
        content = "\n".join(
            "".join(f"{word}\t{tag}\n" for word, tag in zip(row["tokens"], row["ner_tags"], strict=True))
            for row in rows(80)
        )
        (tmp_path / "train.conll").write_text(content)
        train = tmp_path / "train.conll"
        metrics = run(recipe(made / "model", train, training={"max_steps": 2}), tmp_path / "run")
        assert set(metrics["entity_shares"]["train"]) == {"bad", "good"}


class TestWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("Anna O'Neill, Paris.", ["Anna", "O'Neill", ",", "Paris", "."]),
            ("a-b 3.14 x@y.org", ["a-b", "3.14", "x@y.org"]),
            ("東京に行く now", ["東", "京", "に", "行", "く", "now"]),
            ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
            ("cafe\u0301 noir", ["cafe\u0301", "noir"]),
            ("ok 👩\u200d💻 !", ["ok", "👩\u200d💻", "!"]),
            ("", []),
            (" \t\n", []),
        ],
    )
    def test_where_they_are(self, text: str, words: list[str]) -> None:
        assert [text[start:end] for start, end in wording.of_text(text)] == words

    @given(st.text())
    def test_every_character_but_white_space_is_in_one(self, text: str) -> None:
        spans = wording.of_text(text)
        inside = [place for start, end in spans for place in range(start, end)]
        assert inside == sorted(set(inside))
        assert all(text[place].isspace() for place in set(range(len(text))) - set(inside))
        assert all(start < end for start, end in spans)


def byte_level(folder: Path) -> Any:
    """A byte-level BPE tokenizer, as GPT-2 and RoBERTa have it, that spells a word otherwise at a text's start."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([" ".join(row["tokens"]) for row in rows(50)] * 4, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    made.save_pretrained(folder)
    return made


def encoded(questions: Sequence[Question], tokenizer: Any, max_length: int = 64) -> list[tuple[list[int], list[int]]]:
    found = tokens.encode(questions, tokenizer, Cutting(max_length))
    return [(list(one.ids), list(one.reads or ())) for one in found]


class TestTokens:
    def test_words_are_tokenised_as_stock_does_it(self, tmp_path: Path) -> None:
        """A byte-level tokenizer gives each word the space before it, the first one too (``add_prefix_space``)."""
        from transformers import AutoConfig, AutoTokenizer

        from featherweight.recipe import ModelSection
        from featherweight.sources import models as sources
        from featherweight.tasks import heads

        byte_level(tmp_path)
        config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2, n_positions=64, vocab_size=400)
        from transformers import AutoModel

        AutoModel.from_config(config).save_pretrained(tmp_path)
        source = sources.find(str(tmp_path), None)
        plan = TokenClassification(KIND).head()
        _, tokenizer, _ = heads.load(plan, source, ModelSection(name=str(tmp_path)))
        texts = [row["tokens"] for row in rows(40)] + [["Ünïcode", "日本", "a  b", ""], ["film"]]
        stock_one = AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
        stock_one.backend_tokenizer.pre_tokenizer.add_prefix_space = True
        expected = stock_one(texts, is_split_into_words=True)
        ours = encoded([Question(*wording.joined(words)) for words in texts], tokenizer)
        assert [ids for ids, _ in ours] == expected["input_ids"]
        for row, (_, reads) in enumerate(ours):
            words = expected.word_ids(row)
            assert reads == [words.index(one) if one in words else UNSEEN for one in range(len(texts[row]))]
        without = AutoTokenizer.from_pretrained(tmp_path)(" ".join(texts[0]))["input_ids"]
        assert ours[0][0] != without, "negative control: at the start of a text the word is spelt otherwise"
        tokenizer.save_pretrained(tmp_path / "saved")
        again = AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert again(texts, is_split_into_words=True)["input_ids"] == expected["input_ids"], "and so it travels"

    @pytest.mark.parametrize("kind", ["gpt2", "roberta"])
    def test_the_classes_that_rebuild_their_tokenizer_keep_the_space(self, kind: str, tmp_path: Path) -> None:
        """transformers makes these anew from vocabulary and merges, by what ``tokenizer_config.json`` says."""
        import transformers

        from featherweight.tasks import heads

        state = json.loads(byte_level(tmp_path / "bytes").backend_tokenizer.to_str())["model"]
        vocabulary = dict(state["vocab"])
        for name in ("<s>", "</s>", "<unk>", "<pad>", "<mask>", "<|endoftext|>"):
            vocabulary.setdefault(name, len(vocabulary))
        kinds = {"gpt2": transformers.GPT2TokenizerFast, "roberta": transformers.RobertaTokenizerFast}
        kinds[kind](vocab=vocabulary, merges=[tuple(pair) for pair in state["merges"]]).save_pretrained(tmp_path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        words = ["great", "film", "xyz"]
        plain = tokenizer(" ".join(words))["input_ids"]
        heads._space_before_words(tokenizer)
        expected = transformers.AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
        ids = expected(words, is_split_into_words=True)["input_ids"]
        assert encoded([Question(*wording.joined(words))], tokenizer)[0][0] == ids
        assert ids != plain, "negative control"
        tokenizer.save_pretrained(tmp_path / "saved")
        again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert again(words, is_split_into_words=True)["input_ids"] == ids

    def test_words_that_are_cut_off_or_have_no_token_are_not_read(self) -> None:
        tokenizer = tiny.tokenizer("bert")
        words = ["the", "", "film", "great", "plot"]
        ((ids, reads),) = encoded([Question(*wording.joined(words))], tokenizer, 4)
        assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "the", "film", "[SEP]"]
        assert reads == [1, UNSEEN, 2, UNSEEN, UNSEEN]
        tokenizer.truncation_side = "left"
        ((ids, reads),) = encoded([Question(*wording.joined(words))], tokenizer, 4)
        assert reads == [UNSEEN, UNSEEN, UNSEEN, 1, 2]

    def test_the_first_token_of_a_word_answers_for_it(self, tmp_path: Path) -> None:
        tokenizer = byte_level(tmp_path)
        ((ids, reads),) = encoded([Question(*wording.joined(["xyzzyx", "film"]))], tokenizer)
        assert reads[0] == 0
        assert reads[1] > 1, "the first word has several tokens"
        assert len(ids) > reads[1]


def token_model(num_labels: int = 5) -> Any:
    """A tiny stock tagger with LoRA whose B is not zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(11)
    model = AutoModelForTokenClassification.from_config(tiny.config("bert", num_labels=num_labels, pad_token_id=0))
    return get_peft_model(
        model,
        LoraConfig(
            task_type="TOKEN_CLS", r=4, lora_alpha=8, target_modules=["query", "value"], init_lora_weights=False
        ),
    )


def train_stock(model: Any, content: Sequence[Row], folder: Path, max_length: int = 64, **changes: Any) -> list[float]:
    """The Trainer as the hub's course has it: the first token of a word is labelled and the others are -100."""
    import transformers

    tokenizer = tiny.tokenizer("bert")
    names = {name: index for index, name in enumerate(KIND.names)}
    examples = []
    for row in content:
        given_words = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        labels, before = [], None
        for word in given_words.word_ids():
            labels.append(-100 if word is None or word == before else names[row["ner_tags"][word]])
            before = word
        examples.append({"input_ids": given_words["input_ids"], "labels": labels})
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

    collator = transformers.DataCollatorForTokenClassification(tokenizer)
    Recording(model=model, args=arguments, train_dataset=examples, data_collator=collator).train()
    return losses


def encoding_of(content: Sequence[Row], max_length: int = 64) -> Encoding:
    questions = [Question(*wording.joined(row["tokens"])) for row in content]
    found = tokens.encode(questions, tiny.tokenizer("bert"), Cutting(max_length))
    targets = Ragged.of([[KIND.names.index(tag) for tag in row["ner_tags"]] for row in content], np.int32)
    made = Encoding.asked(found)
    return Encoding(made.tokens, targets, made.reads)


def executed(model: Any) -> Execution:
    return Execution(model.get_base_model(), 0, reads_tokens=True)


class TestLoss:
    @pytest.mark.parametrize("max_length", [64, 5])
    def test_step_by_step_it_is_the_trainers(self, max_length: int, tmp_path: Path) -> None:
        """Also where texts are cut, so that not every word is trained on."""
        content = rows(43)
        ours, theirs = token_model(), token_model()
        start = trained(ours)
        encoding = encoding_of(content, max_length)
        assert encoding.reads is not None
        assert (UNSEEN in encoding.reads.values) == (max_length == 5)
        once = {"gradient_accumulation_steps": 1}
        task = TokenClassification(KIND)
        found = train_ours(ours, encoding, tmp_path / "ours", executed(ours), task=task, **once)
        expected = train_stock(theirs, content, tmp_path / "stock", max_length, **once)
        assert len(found) == len(expected) == 22
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
        assert largest_difference(trained(ours), trained(theirs)) < 1e-5
        assert largest_difference(trained(ours), start) > 1e-3

    def test_accumulated_batches_are_one_batch_which_stock_inflates(self, tmp_path: Path) -> None:
        """Micro-batches with unlike numbers of words: the loss of a step is the mean over all its words. The stock
        head for tokens ignores ``num_items_in_batch``, and the Trainer takes it not to."""
        content = sorted(rows(36), key=lambda row: len(row["tokens"]))
        encoding, losses, models = encoding_of(content), {}, {}
        for batch, accumulated in ((4, 3), (12, 1)):
            models[batch] = token_model()
            losses[batch] = train_ours(
                models[batch], encoding, tmp_path / str(batch), executed(models[batch]), task=TokenClassification(KIND),
                per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated,
            )  # fmt: skip
        np.testing.assert_allclose(losses[4], losses[12], atol=1e-4)
        assert losses[4][0] == pytest.approx(losses[12][0], abs=1e-5)
        assert largest_difference(trained(models[4]), trained(models[12])) < 1e-4
        inflated = train_stock(token_model(), content, tmp_path / "stock")
        assert inflated[0] > 2.5 * losses[4][0]

    @pytest.mark.parametrize("max_length", [64, 5])
    def test_packed_is_padded(self, max_length: int) -> None:
        encoding = encoding_of(rows(17, seed=3), max_length)
        model = token_model().eval()
        execution = executed(model)
        assert isinstance(execution.forward, Packed)
        order = np.random.default_rng(0).permutation(len(encoding))
        packed = execution.outputs(model, encoding, order)
        execution.forward = Padded(0, torch.device("cpu"), "")
        padded = execution.outputs(model, encoding, order)
        torch.testing.assert_close(packed.values, padded.values, atol=1e-5, rtol=1e-5)
        assert (packed.seen is None) == (padded.seen is None)
        assert isinstance(encoding.targets, Ragged)
        task, targets = TokenClassification(KIND), torch.from_numpy(encoding.targets[order].values)
        one, other = (float(task.loss(outputs, targets).detach()) for outputs in (packed, padded))
        assert one == pytest.approx(other, rel=1e-5)
        items = int(np.count_nonzero(encoding.reads.values != UNSEEN))  # type: ignore[union-attr]
        assert encoding.items(order) == items
        column = packed.column(ragged=True)
        assert KIND.losses(column, encoding.targets[order]) == (pytest.approx(one, rel=1e-4), items)


class TestRuns:
    def test_it_has_learned(self, finished: Path) -> None:
        """What follows would prove nothing of a model that finds no entity."""
        metrics = json.loads((finished / "metrics.json").read_text())
        assert metrics["comparison"]["metric"] == "f1"
        assert metrics["tuned"]["eval_f1"] > 0.5
        assert metrics["comparison"]["verdict"] == "better"
        assert set(metrics["baselines"]) == {"commonest-tag", "token-probe"}
        assert metrics["baselines"]["token-probe"]["eval_accuracy"] > 0.9, "hidden states tell their word"

    def test_figures_are_those_of_the_predictions(self, finished: Path) -> None:
        from seqeval import metrics as seqeval
        from seqeval.scheme import IOB2 as scheme

        kept = json.loads((finished / "metrics.json").read_text())
        for model in ("base", "tuned"):
            found = RunDirectory(finished).read_predictions(model, "validation")
            names = KIND.names
            true, said = (
                [[names[one] for one in column.row(row)] for row in range(len(column))]  # type: ignore[union-attr]
                for column in (found.truth, found.answers[TAGS])
            )
            assert kept[model]["eval_f1"] == pytest.approx(
                seqeval.f1_score(true, said, mode="strict", scheme=scheme, zero_division=0), abs=1e-9
            )
            assert kept[model]["eval_accuracy"] == pytest.approx(seqeval.accuracy_score(true, said), abs=1e-9)
        errors = kept["entity_errors"]["tuned"]
        support = sum(one["support"] for one in kept["entities"]["tuned"].values())
        assert sum(errors[name] for name in ("right", "type", "boundary", "both", "missed")) == support

    def test_the_commonest_tag_of_each_word_is_counted(self, finished: Path) -> None:
        found = RunDirectory(finished).read_predictions("commonest-tag", "validation")
        held_out = set(found.ids.tolist())
        content = rows(240)
        counts: dict[str, Counter[str]] = {}
        for row in (row for index, row in enumerate(content) if index not in held_out):
            for word, tag in zip(row["tokens"], row["ner_tags"], strict=True):
                counts.setdefault(word, Counter())[tag] += 1
        for place, index in enumerate(found.ids):
            for word, tag in zip(content[index]["tokens"], found.answers[TAGS].row(place), strict=True):
                assert counts[word][KIND.names[tag]] == max(counts[word].values())

    def test_the_cards_lines_give_our_tags(self, finished: Path) -> None:
        model, tokenizer = stock.by_card(finished / "adapter")
        assert [model.config.id2label[index] for index in range(5)] == list(KIND.names)
        predictor = load_predictor(finished)
        texts = [row["tokens"] for row in rows(12, seed=8)]
        found = predictor.answers(texts)
        for row, words in enumerate(texts):
            given_words = tokenizer(
                words, is_split_into_words=True, truncation=True, max_length=16, return_tensors="pt"
            )
            places = [
                given_words.word_ids().index(word) for word in range(len(words)) if word in given_words.word_ids()
            ]
            given_words.pop("token_type_ids", None)
            with torch.no_grad():
                probabilities = model(**given_words).logits[0, places].softmax(-1)
            assert found[TAGS].row(row)[: len(places)].tolist() == probabilities.argmax(-1).tolist()
            scores = found[SCORES].row(row)[: len(places)]
            np.testing.assert_allclose(scores, probabilities.max(-1).values, atol=1e-5)
        card = (finished / "adapter" / "README.md").read_text()
        assert "pipeline_tag: token-classification" in card
        assert "Types of entity: bad, good." in card

    def test_a_stopped_run_resumes_to_the_same_bytes(
        self, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        training = RESUMED | {"num_train_epochs": 2}
        content = recipe(made / "model", made / "train.jsonl", training=training, method={"lora_dropout": 0.2})
        run(content, tmp_path / "whole")
        stopped_and_resumed(content, tmp_path / "stopped", 7, monkeypatch)
        whole, stopped = (files_of(tmp_path / name / "adapter") for name in ("whole", "stopped"))
        assert whole["adapter_model.safetensors"] == stopped["adapter_model.safetensors"]

    @pytest.mark.parametrize("form", ["merged", "onnx"])
    def test_exports_answer_and_measure_as_their_run(self, form: str, finished: Path, tmp_path: Path) -> None:
        if form == "onnx":
            pytest.importorskip("onnx")
            pytest.importorskip("onnxruntime")
        workflow.export(finished, form, tmp_path / "out")
        require_same_entities(load_predictor(tmp_path / "out").predict(ASKED), load_predictor(finished).predict(ASKED))
        content = [*rows(40, seed=5), {"tokens": ["film"] * 30 + ["great"], "ner_tags": ["O"] * 30 + ["B-good"]}]
        path = tiny.save_jsonl(tmp_path / "new.jsonl", content)
        section = TokenClassification.Columns(train_file=str(path))
        run_says, export_says = (workflow.evaluate(str(one), section) for one in (finished, tmp_path / "out"))
        assert run_says.keys() == export_says.keys()
        assert run_says["entities"] == export_says["entities"]
        for name in ("loss", "f1", "precision", "recall", "accuracy"):
            assert export_says[f"eval_{name}"] == pytest.approx(run_says[f"eval_{name}"], abs=1e-5)
        gold = sum(tag[0] == "B" for row in content for tag in row["ner_tags"])
        assert sum(one["support"] for one in run_says["entities"].values()) == gold, "also what was cut off"

    def test_evaluate_says_what_metrics_json_says(self, finished: Path) -> None:
        kept = json.loads((finished / "metrics.json").read_text())["tuned"]
        found = workflow.evaluate(str(finished))
        for name in ("eval_loss", "eval_f1", "eval_accuracy", "eval_f1_interval"):
            assert found[name] == pytest.approx(kept[name], abs=1e-6)

    def test_texts_that_are_cut_count_whole(self, made: Path, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "train.jsonl", rows(120))
        content = recipe(made / "model", train, data={"max_length": 5}, training={"max_steps": 4})
        metrics = run(content, tmp_path / "run")
        found = RunDirectory(tmp_path / "run").read_predictions("tuned", "validation")
        all_rows = rows(120)
        gold = sum(tag[0] == "B" for row in found.ids for tag in all_rows[row]["ner_tags"])
        assert sum(one["support"] for one in metrics["entities"]["tuned"].values()) == gold
        for place in range(len(found.ids)):
            assert not found.answers[TAGS].row(place)[3:].any(), "a word that was cut off is O"
        assert metrics["tuned"]["eval_recall"] < 1
        assert any("cut" in line for line in metrics["data_checks"]["warnings"])

    def test_a_type_that_is_never_found_is_said(self, made: Path, tmp_path: Path) -> None:
        content = rows(120)
        for row in content[::9]:  # which nothing tells from the same word elsewhere
            row["tokens"], row["ner_tags"] = ["film", *row["tokens"]], ["B-rare", *row["ner_tags"]]
        for row in content:
            row["tokens"], row["ner_tags"] = ["film", *row["tokens"]], ["O", *row["ner_tags"]]
        train = tiny.save_jsonl(tmp_path / "train.jsonl", content)
        metrics = run(recipe(made / "model", train, training={"num_train_epochs": 3}), tmp_path / "run")
        from featherweight.report.tables import cautions

        (line,) = (line for line in cautions(metrics) if "never finds" in line)
        assert "'rare'" in line
        card = (tmp_path / "run" / "adapter" / "README.md").read_text()
        assert "never finds" in card

    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    @pytest.mark.parametrize("method", ["linear-probe", "full"])
    def test_other_methods_answer_as_they_were_measured(self, method: str, kind: str, tmp_path: Path) -> None:
        content = rows(80)
        train = tiny.save_jsonl(tmp_path / "train.jsonl", content)
        model = save_telling(tmp_path / "model", kind)
        run(recipe(model, train, method={"name": method}, training={"max_steps": 3}), tmp_path / "run")
        kept = RunDirectory(tmp_path / "run").read_predictions("tuned", "validation")
        found = load_predictor(tmp_path / "run").answers([content[row]["tokens"] for row in kept.ids])
        assert found[TAGS].values.tolist() == kept.answers[TAGS].values.tolist()
        np.testing.assert_allclose(found[SCORES].values, kept.answers[SCORES].values, atol=1e-5)

    def test_two_runs_are_compared_on_their_rows(self, finished: Path, made: Path, tmp_path: Path) -> None:
        run(recipe(made / "model", made / "train.jsonl", training={"max_steps": 1}), tmp_path / "less")
        (found,) = workflow.compare([str(finished), str(tmp_path / "less")])["comparisons"]
        assert found["metric"] == "f1"
        assert found["difference"] < 0
        other = tiny.save_jsonl(tmp_path / "other.jsonl", rows(240, seed=1))
        run(recipe(made / "model", other, training={"max_steps": 1}), tmp_path / "other")
        with pytest.raises(DataError, match="not measured on the same rows"):
            workflow.compare([str(finished), str(tmp_path / "other")])

    def test_plain_tags_have_accuracy_as_headline(self, made: Path, tmp_path: Path) -> None:
        kinds = {
            **dict.fromkeys(tiny.GOOD, "ADJ"),
            **dict.fromkeys(tiny.BAD, "ADV"),
            **dict.fromkeys(tiny.PLAIN, "NOUN"),
        }
        content = [{"tokens": row["tokens"], "pos_tags": [kinds[word] for word in row["tokens"]]} for row in rows(120)]
        train = tiny.save_jsonl(tmp_path / "train.jsonl", content)
        metrics = run(recipe(made / "model", train, training={"num_train_epochs": 3}), tmp_path / "run")
        assert metrics["answer"] == "plain-tags"
        assert metrics["comparison"]["metric"] == "accuracy"
        assert metrics["baselines"]["commonest-tag"]["eval_accuracy"] == 1
        assert set(metrics["tag_shares"]["train"]) == {"ADJ", "ADV", "NOUN"}
        predictor = load_predictor(tmp_path / "run")
        (reply,) = predictor.predict([["great", "film"]])
        assert [one["word"] for one in reply["tags"]] == ["great", "film"]
        assert [(one["start"], one["end"]) for one in reply["tags"]] == [(0, 5), (6, 10)]
        found = predictor.predict([""])[0]["tags"]
        assert [one["tag"] for one in found] in ([], [None])
        long = predictor.predict([["film"] * 30])[0]["tags"]
        assert [one["tag"] is None for one in long] == [False] * 14 + [True] * 16


def require_same_entities(found: Sequence[Row], expected: Sequence[Row]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        ours, theirs = (
            [{key: value for key, value in entity.items() if key != "score"} for entity in reply["entities"]]
            for reply in (one, other)
        )
        assert ours == theirs
        scores = [[entity["score"] for entity in reply["entities"]] for reply in (one, other)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


class TestAnswering:
    def test_entities_are_characters_of_the_text_given(self, finished: Path) -> None:
        predictor = load_predictor(finished)
        texts = ["  the film, great!  (awful)plot\nsuperb with story", "great great"]
        replies = predictor.predict(texts)
        assert sum(len(one["entities"]) for one in replies) >= 2
        for text, reply in zip(texts, replies, strict=True):
            for one in reply["entities"]:
                assert one.keys() == {"entity_group", "score", "word", "start", "end"}
                assert text[one["start"] : one["end"]] == one["word"]
                assert one["entity_group"] in {"good", "bad"}
                assert 0 < one["score"] <= 1
        assert any(one["word"] == "great" and one["entity_group"] == "good" for one in replies[0]["entities"])

    def test_batched_equals_single(self, finished: Path) -> None:
        predictor = load_predictor(finished)
        asked = [*ASKED, *(" ".join(row["tokens"]) for row in rows(30, seed=4))]
        require_same_entities([predictor.predict([one])[0] for one in asked], predictor.predict(asked))

    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    def test_a_list_of_words_in_a_cell_is_one_as_in_training(self, ending: str, finished: Path, tmp_path: Path) -> None:
        words = ["the", "O'Neill-film", "great"]
        table = pa.table({"tokens": [json.dumps(words), "the great film"]})
        if ending == "csv":
            pa_csv.write_csv(table, tmp_path / "in.csv")
        else:
            pq.write_table(table, tmp_path / "in.parquet")
        predictor = load_predictor(finished)
        target = tmp_path / "out.jsonl"
        assert predictor.predict_file(tmp_path / f"in.{ending}", target, column="tokens") == 2
        found = [json.loads(line) for line in target.read_text().splitlines()]
        assert [row["entities"] for row in found] == [
            predictor.predict([asked])[0]["entities"] for asked in (words, "the great film")
        ]

    def test_a_text_a_list_and_tokens_are_one_question(self, finished: Path) -> None:
        replies = load_predictor(finished).predict(
            [
                "the great film",
                ["the", "great", "film"],
                {"tokens": ["the", "great", "film"]},
                {"text": "the great film"},
            ]
        )
        for reply in replies[1:]:
            require_same_entities([reply], replies[:1])

    @pytest.mark.parametrize("empty", ["", "   ", [], [""], {"tokens": []}])
    def test_nothing_has_no_entities(self, empty: Any, finished: Path) -> None:
        assert load_predictor(finished).predict([empty, "great"])[0] == {"entities": []}

    @pytest.mark.parametrize("wrong", [3, None, {"words": ["a"]}, {"tokens": 3}, ["a", 1], [["a"]], {}])
    def test_what_is_no_question_is_refused(self, wrong: Any, finished: Path) -> None:
        with pytest.raises(DataError):
            load_predictor(finished).predict(["great", wrong])

    def test_nothing_is_calibrated(self, finished: Path) -> None:
        from featherweight.errors import ModelError

        with pytest.raises(ModelError, match="nothing is fitted for tags"):
            load_predictor(finished, calibrated=True)
        with pytest.raises(ConfigError, match="--max-error-rate"):
            load_predictor(finished, max_error_rate=0.1)

    @pytest.mark.parametrize("ending", ["jsonl", "parquet"])
    def test_files_with_a_column_of_tokens(self, ending: str, finished: Path, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = [{"tokens": row["tokens"], "n": index} for index, row in enumerate(rows(9, seed=6))]
        content.append({"tokens": [], "n": 9})
        source = tmp_path / f"in.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(content), source)
        else:
            tiny.save_jsonl(source, content)
        predictor = load_predictor(finished)
        expected = predictor.predict([row["tokens"] for row in content])
        for target in (tmp_path / "out.jsonl", tmp_path / "out.parquet"):
            assert predictor.predict_file(source, target) == 10
            found = (
                pq.read_table(target).to_pylist()
                if target.suffix == ".parquet"
                else [json.loads(line) for line in target.read_text().splitlines()]
            )
            assert [row["n"] for row in found] == list(range(10))
            assert [row["tokens"] for row in found] == [row["tokens"] for row in content]
            require_same_entities(found, expected)
        text = tiny.save_csv(tmp_path / "in.csv", [{"text": "the great film"}, {"text": ""}])
        predictor.predict_file(text, tmp_path / "out.csv")
        import csv

        with (tmp_path / "out.csv").open(newline="") as stream:
            cells = [json.loads(row["entities"]) for row in csv.DictReader(stream)]
        require_same_entities([{"entities": one} for one in cells], predictor.predict(["the great film", ""]))

    @pytest.mark.slow
    def test_the_server_gives_the_same_entities(self, finished: Path) -> None:
        expected = load_predictor(finished).predict(ASKED)
        with serving.running(finished) as server:
            answer = server.predict(ASKED)  # type: ignore[arg-type]
            assert answer.status == 200, answer.body
            require_same_entities(answer.json["predictions"], expected)
            for one, alone in zip(ASKED, expected, strict=True):
                require_same_entities(server.predict([one]).json["predictions"], [alone])  # type: ignore[list-item]
            refused = server.predict([{"words": ["a"]}])  # type: ignore[list-item]
            assert refused.status == 422
            assert b"tokens" in refused.body

    def test_a_stock_tagger_of_another_order_answers_by_name(self, tmp_path: Path) -> None:
        from transformers import AutoModelForTokenClassification

        names = ["B-good", "O", "I-bad", "I-good", "B-bad"]
        torch.manual_seed(2)
        config = tiny.config("bert", num_labels=5, pad_token_id=0, initializer_range=0.5)
        config.id2label, config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
        model = AutoModelForTokenClassification.from_config(config).eval()
        model.save_pretrained(tmp_path / "model")
        tokenizer = tiny.tokenizer("bert")
        tokenizer.save_pretrained(tmp_path / "model")
        predictor = load_predictor(tmp_path / "model")
        assert isinstance(predictor.kind, Tags)
        texts = [row["tokens"] for row in rows(20)]
        found = predictor.answers(texts)
        seen = set()
        for row, words in enumerate(texts):
            given_words = tokenizer(words, is_split_into_words=True, return_tensors="pt")
            given_words.pop("token_type_ids", None)
            with torch.no_grad():
                expected = [names[one] for one in model(**given_words).logits[0, 1:-1].argmax(-1).tolist()]
            assert [KIND.names[one] for one in found[TAGS].row(row)] == expected
            seen |= set(expected)
        assert len(seen) > 2


class TestGoingOn:
    def test_the_adapters_tags_are_kept(self, made: Path, tmp_path: Path) -> None:
        """Data without one of its types would else make a head of other tags, or of as many others."""
        content = [
            {"tokens": row["tokens"], "ner_tags": [tag if "good" in tag else "O" for tag in row["ner_tags"]]}
            for row in rows(80, seed=2)
        ]
        train = tiny.save_jsonl(tmp_path / "train.jsonl", content)
        given_recipe = recipe(made / "model", train, training={"max_steps": 2})
        given_recipe["model"] = {**given_recipe["model"], "adapter": str(made / "run")}
        run(given_recipe, tmp_path / "second")
        begun = RunDirectory(tmp_path / "second").read_predictions("base", "validation")
        assert begun.kind.facts()["labels"] == list(KIND.names)
        texts = [content[row]["tokens"] for row in begun.ids]
        expected = load_predictor(made / "run").answers(texts)
        assert begun.answers[TAGS].values.tolist() == expected[TAGS].values.tolist()
        assert 1 not in begun.truth.values  # type: ignore[union-attr]

    def test_tags_that_it_lacks_are_named_by_row(self, made: Path, tmp_path: Path) -> None:
        content = rows(80, seed=2)
        content[4] = {"tokens": ["film"], "ner_tags": ["B-new"]}
        train = tiny.save_jsonl(tmp_path / "train.jsonl", content)
        given_recipe = recipe(made / "model", train, training={"max_steps": 2})
        given_recipe["model"] = {**given_recipe["model"], "adapter": str(made / "run")}
        with pytest.raises(DataError, match=r"row 5: the tag 'B-new' is none of 'O', 'B-bad'"):
            run(given_recipe, tmp_path / "second")


class TestChecks:
    def test_what_is_wrong_with_the_data_is_said(self, made: Path, tmp_path: Path) -> None:
        content = rows(80)
        content[7] = {"tokens": ["film", "great"], "ner_tags": ["O", "B-good"]}
        content[9] = {"tokens": ["film", "great"], "ner_tags": ["O", "B-bad"]}
        train = tiny.save_jsonl(tmp_path / "train.jsonl", content)
        held = [*rows(20, seed=3), {"tokens": ["plot", "plot"], "ner_tags": ["B-new", "I-new"]}]
        validation = tiny.save_jsonl(tmp_path / "validation.jsonl", held)
        given_recipe = recipe(made / "model", train, training={"max_steps": 1})
        given_recipe["data"] |= {"validation_file": str(validation), "allow_leak": True}
        checked = run(given_recipe, tmp_path / "run")["data_checks"]
        assert checked["unknown_tags"] == {"validation": {"B-new": 1, "I-new": 1}}
        assert [one["row"] for one in checked["conflicting_tags"]["examples"]][:2] == [8, 10]
        said = " ".join(checked["warnings"])
        assert "2 words of validation have tags that train lacks: 'B-new', 'I-new'." in said
        assert "words that also stand there with other tags" in said

    def test_strata_keep_rare_types_on_both_sides(self) -> None:
        content = rows(200)
        truth = Ragged.of([[KIND.names.index(tag) for tag in row["ner_tags"]] for row in content], np.int32)
        codes, names = KIND.strata(truth)
        for code in np.unique(codes):
            assert (codes == code).sum() >= 5
            assert names[code]
        has = np.asarray([any(tag != "O" for tag in row["ner_tags"]) for row in content])
        assert not (codes[~has] != codes[~has][0]).any()


@pytest.fixture(scope="module")
def byte_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("bytes")
    byte_level(folder / "model")
    torch.manual_seed(0)
    config = tiny.config("roberta", 0.1, vocab_size=400, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    AutoModel.from_config(config).save_pretrained(folder / "model")
    train = tiny.save_jsonl(folder / "train.jsonl", rows(160))
    content = recipe(folder / "model", train, data={"max_length": 40})
    run(content, folder / "run")
    return folder / "run"


class TestByteLevel:
    """A whole run on a tokenizer that spells words otherwise at a text's start, and cuts them into pieces."""

    @pytest.mark.parametrize("form", ["onnx", "merged", "adapter"])
    def test_every_form_reads_the_same_tokens(self, form: str, byte_run: Path, tmp_path: Path) -> None:
        if form == "onnx":
            pytest.importorskip("onnx")
            pytest.importorskip("onnxruntime")
        workflow.export(byte_run, form, tmp_path / "out")
        asked = [*(row["tokens"] for row in rows(20, seed=7)), ["Ünïcode", "", "日本"], "great, film"]
        mine, theirs = load_predictor(tmp_path / "out").answers(asked), load_predictor(byte_run).answers(asked)
        assert mine[TAGS].values.tolist() == theirs[TAGS].values.tolist()
        np.testing.assert_allclose(mine[SCORES].values, theirs[SCORES].values, atol=1e-5)

    def test_the_cards_lines_read_them_too(self, byte_run: Path) -> None:
        model, tokenizer = stock.by_card(byte_run / "adapter")
        texts = [row["tokens"] for row in rows(10, seed=7)]
        found = load_predictor(byte_run).answers(texts)
        for row, words in enumerate(texts):
            given_words = tokenizer(words, is_split_into_words=True, return_tensors="pt")
            places = [given_words.word_ids().index(word) for word in range(len(words))]
            given_words.pop("token_type_ids", None)
            with torch.no_grad():
                expected = model(**given_words).logits[0, places].softmax(-1).max(-1).values
            np.testing.assert_allclose(found[SCORES].row(row), expected, atol=1e-5)


class TestSources:
    def test_a_hub_data_set_with_numbers_for_tags(self, tmp_path: Path) -> None:
        """Its splits share the names that it declares, and its columns are found."""
        import datasets

        names = list(KIND.names)
        features = datasets.Features(
            {
                "id": datasets.Value("string"),
                "tokens": datasets.Sequence(datasets.Value("string")),
                "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
            }
        )
        content = rows(60)
        columns = {
            "id": [str(index) for index in range(60)],
            "tokens": [row["tokens"] for row in content],
            "ner_tags": [[names.index(tag) for tag in row["ner_tags"]] for row in content],
        }
        section = TokenClassification.Columns(name="some/set")
        rows_of_it = datasets.Dataset.from_dict(columns, features=features)
        split = data._checked(Split("train", rows_of_it, "some/set (train)", "0"), section)
        task, found = TokenClassification.prepare({"train": split}, section, 0)
        assert isinstance(task.answer, Tags)
        assert task.answer.names == KIND.names
        for name in ("train", "validation"):
            one = found[name]
            for place, row in enumerate(one.ids):
                assert [names[tag] for tag in one.truth.row(place)] == content[row]["ner_tags"]  # type: ignore[union-attr]
                assert list(one.questions())[place].spelt() == content[row]["tokens"]

    def test_a_conll_file_is_predicted(self, finished: Path, tmp_path: Path) -> None:
        content = rows(5, seed=6)
        lines = ["".join(f"{word} O\n" for word in row["tokens"]) for row in content]
        (tmp_path / "in.conll").write_text("\n".join(lines))
        predictor = load_predictor(finished)
        assert predictor.predict_file(tmp_path / "in.conll", tmp_path / "out.jsonl") == 5
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        require_same_entities(found, predictor.predict([row["tokens"] for row in content]))

    def test_the_command_evaluates_a_conll_file(self, cli: Any, finished: Path, tmp_path: Path) -> None:
        lines = [
            "".join(f"{word}\t{tag}\n" for word, tag in zip(row["tokens"], row["ner_tags"], strict=True))
            for row in rows(30, seed=6)
        ]
        (tmp_path / "test.conll").write_text("\n".join(lines))
        done = cli("evaluate", finished, "--data", "test.conll", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["n"] == 30
        assert set(found["entities"]) == {"bad", "good"}
        section = TokenClassification.Columns(train_file=str(tmp_path / "test.conll"))
        assert found["eval_f1"] == pytest.approx(workflow.evaluate(str(finished), section)["eval_f1"])

    @pytest.mark.parametrize(
        ("name", "sentences", "words", "count"),
        [("wnut17train.conll", 3394, 62730, 1975), ("emerging.dev.conll", 1009, 15733, 836)],
    )
    def test_every_sentence_of_wnut17_is_read(self, name: str, sentences: int, words: int, count: int) -> None:
        """The figures of the shared task's paper (Derczynski et al., 2017)."""
        path = SHARED / "wnut17" / name
        if not path.is_file():
            pytest.skip(f"the real WNUT-17 is not at {path}")
        section = data.found(TokenClassification.Columns(train_file=str(path)))
        column = reading.read(data.load(section)["train"], section.text, section.label)
        assert len(column.rows) == sentences
        assert sum(len(row.words) for row in column.rows) == words
        assert sum(tag[0] == "B" for row in column.rows for tag in row.tags or ()) == count


@pytest.mark.slow
def test_taggers_and_others_on_one_base_are_served_each_as_itself(made: Path, tmp_path: Path) -> None:
    """Several adapters of one base are run together; heads of other kinds stand beside them."""
    run(recipe(made / "model", made / "train.jsonl", training={"num_train_epochs": 2, "seed": 9}), tmp_path / "second")
    numbers = [{"text": " ".join(row["tokens"]), "label": len(row["tokens"]) / 2} for row in rows(80)]
    train = tiny.save_csv(tmp_path / "train.csv", numbers)
    content = tiny.recipe(made / "model", train, data={"allow_leak": True}) | {"task": "regression"}
    run(content, tmp_path / "number")
    folders = {"run": made / "run", "second": tmp_path / "second", "number": tmp_path / "number"}
    texts = ["the great film", "", "awful very plot, superb with music", "the story"]
    expected = {name: load_predictor(folder).predict(texts) for name, folder in folders.items()}
    with serving.running(*folders.values()) as server:
        for name in ("run", "second", "run"):
            require_same_entities(server.predict(texts, name).json["predictions"], expected[name])
        found = [one["value"] for one in server.predict(texts, "number").json["predictions"]]
        np.testing.assert_allclose(found, [one["value"] for one in expected["number"]], rtol=1e-4)
    assert expected["run"] != expected["second"], "negative control: the adapters differ"
