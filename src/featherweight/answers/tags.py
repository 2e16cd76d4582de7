"""A tag for each word: what is kept is the likeliest tag of each and its probability."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, Check, Described, class_counts, entities
from featherweight.answers.class_counts import ClassCounts
from featherweight.answers.facts import are_names
from featherweight.errors import ConfigError, ModelError
from featherweight.records.answers import Answers, Likeness
from featherweight.records.parts import Brief
from featherweight.records.questions import Question
from featherweight.records.rows import Column, Ragged
from featherweight.statistics.additive import Additive, Floats, Statistic, mean_of, of_columns, ratio

if TYPE_CHECKING:
    import pyarrow as pa

    from featherweight.recipe.sections import EvidenceSection

TAGS, SCORES = "tags", "scores"
UNSAID = -1  # of a word that the model did not see
_LEAST_IN_STRATUM = 5
_MOST_NAMED = 5


class _Words:
    """What is alike for all kinds of tags.

    Args:
        names: of the tags, in the order of the model's outputs.
    """

    names: tuple[str, ...]
    unsaid: int
    best: ClassVar[str] = "eval_loss"
    fewest_steps: ClassVar[int] = 300
    known: ClassVar[Mapping[str, Check]] = {"labels": (are_names, "a list of names, each once")}
    unfitted: ClassVar[Mapping[str, Any]] = {}
    probe: ClassVar[str] = "token-probe"
    baselines: ClassVar[tuple[str, ...]] = ("commonest-tag", "token-probe")
    checks: ClassVar[tuple[str, ...]] = ("unknown-tags", "twins", "shared-groups", "conflicting-tags")
    reservation: ClassVar[str] = ""
    knows_nothing: ClassVar[tuple[str, str]] = ("commonest-tag", "always answering a word's commonest tag in train")

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        return cls(facts["labels"])  # type: ignore[call-arg]

    def facts(self) -> dict[str, Any]:
        return {"labels": list(self.names)}

    @property
    def width(self) -> int:
        return len(self.names)

    def of_outputs(self, outputs: Column, options: Mapping[str, Any]) -> Answers:
        """Of each word the likeliest tag and its probability; of one that had nothing to read, what stands for none,
        and 0."""
        assert isinstance(outputs, Ragged)
        seen = ~np.isnan(outputs.values[:, 0])
        logits = np.where(seen[:, None], outputs.values, 0)
        tags = np.where(seen, logits.argmax(axis=1), self.unsaid).astype(np.int32)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = np.where(seen, powers.max(axis=1) / powers.sum(axis=1), 0).astype(np.float32)
        return Answers({TAGS: Ragged(tags, outputs.offsets), SCORES: Ragged(scores, outputs.offsets)})

    def options(self, name: str, fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        if asked.get("max_error_rate") is not None:
            raise ConfigError(f"--max-error-rate: {name} answers with tags, for which no threshold is found")
        if asked.get("calibrated"):
            raise ModelError(f"{name}: nothing is fitted for tags; leave --calibrated out")
        return {}

    def table(self, answers: Answers, truth: Ragged) -> pa.Table:
        """``label``, the true tags, ``prediction`` and ``scores``: a list a row each; the metadata has the names."""
        import pyarrow as pa

        columns = {
            "label": _names_in(truth, self.names),
            "prediction": _names_in(answers[TAGS], self.names),
            SCORES: _lists(answers[SCORES], pa.float32()),
        }
        return pa.table(columns, metadata={"labels": json.dumps(list(self.names))})

    @classmethod
    def of_table(cls, table: pa.Table) -> tuple[Self, Answers, Ragged]:
        names = json.loads(table.schema.metadata[b"labels"])
        places = {name: index for index, name in enumerate(names)}

        def codes(column: str) -> Ragged:
            flat, offsets = _flat(table[column])
            found = [UNSAID if name is None else places[name] for name in flat.to_pylist()]
            return Ragged(np.asarray(found, dtype=np.int32), offsets)

        flat, offsets = _flat(table[SCORES])
        scores = Ragged(flat.to_numpy(zero_copy_only=False).astype(np.float32), offsets)
        return cls(names), Answers({TAGS: codes("prediction"), SCORES: scores}), codes("label")  # type: ignore[call-arg]

    def taken_from(self, other: Self, answers: Answers, truth: Ragged) -> tuple[Answers, Ragged] | None:
        """Tags with names in another order, in this one; None where the names are not the same."""
        if set(self.names) != set(other.names):
            return None
        places = np.asarray([*map(self.names.index, other.names), UNSAID], dtype=np.int32)  # -1 stays
        moved = [Ragged(places[one.values], one.offsets) for one in (answers[TAGS], truth)]
        return Answers({TAGS: moved[0], SCORES: answers[SCORES]}), moved[1]

    def confirm(
        self,
        verdict: str,
        pair: tuple[Answers, Answers],
        truth: Ragged,
        groups: Sequence[str | None] | None,
        seed: int,
    ) -> str:
        return verdict

    def fit(
        self,
        fitting: tuple[Answers, Ragged],
        reporting: tuple[Answers, Ragged],
        asked: EvidenceSection | None = None,
    ) -> dict[str, Any]:
        return {}

    def said(self, truth: Ragged, row: int) -> str:
        """The tags of a row."""
        return " ".join(self.names[one] for one in truth.row(row))

    def losses(self, outputs: Column, truth: Ragged) -> tuple[float, int]:
        """Cross-entropy in nats of the words that the model sees."""
        assert isinstance(outputs, Ragged)
        seen = ~np.isnan(outputs.values[:, 0])
        logits = outputs.values[seen].astype(np.float64)
        largest = logits.max(axis=1, initial=-np.inf)
        chosen = logits[np.arange(len(logits)), truth.values[seen]]
        return float((largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1)) - chosen).sum()), len(logits)

    def uninformed_loss(self, truth: Ragged) -> float:
        """Cross-entropy of always answering the shares of the tags."""
        counts = np.bincount(truth.values)
        shares = counts[counts > 0] / len(truth.values)
        return float(-(shares * np.log(shares)).sum())

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        """By the same tags, and by how far the probability of a tag differs."""
        same = one[TAGS].values == other[TAGS].values
        apart = np.abs(one[SCORES].values.astype(np.float64) - other[SCORES].values)
        rows = np.repeat(np.arange(len(one)), one[TAGS].lengths)
        differences = np.zeros(len(one))
        np.maximum.at(differences, rows, apart)
        return Likeness(float(same.mean()) if len(same) else 1.0, differences, "probability", "tags", tolerance=1e-4)


def _sentences(answers: Answers, truth: Ragged) -> Additive:
    """The share of rows of which every tag is right."""
    wrong = _by_row(answers[TAGS].values != truth.values, truth)
    return mean_of(wrong == 0)


def _by_row(values: NDArray[Any], rows: Ragged) -> Floats:
    """Sums over the words of each row."""
    numbers = np.repeat(np.arange(len(rows)), rows.lengths)
    return np.bincount(numbers, weights=values, minlength=len(rows)).astype(np.float64)


def _accuracy(answers: Answers, truth: Ragged) -> Additive:
    """The share of words with the right tag."""
    right = _by_row(answers[TAGS].values == truth.values, truth)
    return of_columns([right, truth.lengths.astype(np.float64)], lambda sums: ratio(sums[..., 0], sums[..., 1]))


def _of_entities(
    value: Callable[[Floats, Floats, Floats], Floats],
) -> Callable[[Answers, Ragged], Additive]:
    """A statistic of three counts: entities found that are true, found, and true."""

    def make(answers: Answers, truth: Ragged) -> Additive:
        columns = [one.astype(np.float64) for one in _counts(answers, truth)]
        return of_columns(columns, lambda sums: value(*np.moveaxis(sums, -1, 0)))

    return make


def _counts(answers: Answers, truth: Ragged) -> list[NDArray[np.int64]]:
    """Of each row: entities found that are true, found, and true."""
    found, true = entities.find(answers[TAGS]), entities.find(truth)
    hits = found.rows[entities.matching(found, true, len(truth.values))]
    return [np.bincount(one, minlength=len(truth)) for one in (hits, found.rows, true.rows)]


def _macro_f1(answers: Answers, truth: Ragged) -> Additive:
    """Mean F1 of the tags."""
    classes = int(max(answers[TAGS].values.max(initial=0), truth.values.max(initial=0))) + 1
    rows = np.repeat(np.arange(len(truth)), truth.lengths)
    found, true = answers[TAGS].values, truth.values
    cells = [(rows[chosen], found[chosen]) for chosen in (found >= 0, found == true)]
    return class_counts.of_cells(class_counts.macro_f1, [(rows, true), *cells], len(truth), classes)


_WORDS_RIGHT = Statistic(
    "accuracy", "accuracy of words", _accuracy, hub="accuracy", aliases=("accuracy_score", "overall_accuracy")
)
_ROWS_RIGHT = Statistic("exact_match", "rows wholly right", _sentences, in_evaluations=False)


class Tags(_Words):
    """Entities, written as IOB2 tags.

    Args:
        names: all tags, in the order of :func:`featherweight.answers.entities.tags_of`.
    """

    name: ClassVar[str] = "tags"
    exhibits: ClassVar[tuple[str, ...]] = ("entity-errors", "where", "marked-examples")
    described: ClassVar[Described] = Described("entity_shares", "Entities by type", "type", "{:.2%}")
    statistics: ClassVar[tuple[Statistic, ...]] = (
        Statistic(
            "f1",
            "entity F1",
            _of_entities(lambda hits, found, true: ratio(2 * hits, found + true)),
            hub="f1",
            aliases=("f1_score", "overall_f1"),
        ),
        Statistic(
            "precision",
            "precision",
            _of_entities(lambda hits, found, true: ratio(hits, found)),
            hub="precision",
            aliases=("precision_score", "overall_precision"),
        ),
        Statistic(
            "recall",
            "recall",
            _of_entities(lambda hits, found, true: ratio(hits, true)),
            hub="recall",
            aliases=("recall_score", "overall_recall"),
        ),
        _WORDS_RIGHT,
        _ROWS_RIGHT,
    )
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["entities"],
        "properties": {
            "entities": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "entity_group": {"type": "string"},
                        "score": {"type": "number", "description": "mean probability of its words' tags"},
                        "word": {"type": "string"},
                        "start": {"type": "integer", "description": "first character in the text"},
                        "end": {"type": "integer", "description": "behind its last character"},
                    },
                },
            }
        },
    }
    unsaid = 0  # what a model did not see is no entity

    def __init__(self, names: Sequence[str]) -> None:
        self.types = entities.types_in(names)
        self.names = entities.tags_of(self.types)
        if tuple(names) != self.names:
            raise ValueError(f"these are not the tags of {len(self.types)} types of entity in their order")

    @property
    def possible(self) -> tuple[str, ...]:
        """The types of entity."""
        return self.types

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """``{"entities": [{"entity_group", "score", "word", "start", "end"}, ...]}`` of each row; places are characters
        of the text."""
        found = entities.find(answers[TAGS])
        for row, question in enumerate(asked):
            words, first = question.words or (), int(answers[TAGS].offsets[row])
            yield {
                "entities": [
                    {
                        "entity_group": self.types[kind],
                        "score": float(answers[SCORES].values[start:end].mean()),
                        "word": question.text[words[start - first][0] : words[end - first - 1][1]],
                        "start": int(words[start - first][0]),
                        "end": int(words[end - first - 1][1]),
                    }
                    for start, end, kind in found.within(row)
                ]
            }

    def line(self, reply: Mapping[str, Any]) -> str:
        """Each entity with its type."""
        found = (f"{one['entity_group']}: {one['word']} ({one['score']:.2f})" for one in reply["entities"])
        return ", ".join(found) or "no entities"

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        """``entities``: a list, or JSON where cells can't nest."""
        return {"entities": reply["entities"] if nests else json.dumps(reply["entities"], ensure_ascii=False)}

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        one = {"entity_group": "", "score": 1 / 3, "word": "a", "start": 0, "end": 1}
        return [self.cells({"entities": [{**one, "entity_group": name} for name in self.types]}, nests)]

    def fields(self, options: Mapping[str, Any]) -> list[pa.Field]:
        import pyarrow as pa

        shape = [("entity_group", pa.string()), ("score", pa.float64()), ("word", pa.string())]
        return [pa.field("entities", pa.list_(pa.struct([*shape, ("start", pa.int64()), ("end", pa.int64())])))]

    def describe(self, truth: Ragged) -> dict[str, float]:
        """The share of each type among the entities."""
        counts = np.bincount(entities.find(truth).types, minlength=len(self.types))
        return {name: float(ratio(count, counts.sum())) for name, count in zip(self.types, counts, strict=True)}

    def strata(self, truth: Ragged) -> tuple[NDArray[np.int64], Sequence[str]]:
        """The rows by the rarest type of entity in them; types of few rows count with those that have none."""
        found = entities.find(truth)
        rarest_last = np.argsort(-np.bincount(found.types, minlength=len(self.types)), kind="stable")
        rarity = np.argsort(rarest_last)
        codes = np.zeros(len(truth), dtype=np.int64)
        np.maximum.at(codes, found.rows, rarity[found.types] + 1)
        counts = np.bincount(codes, minlength=len(self.types) + 1)
        codes[counts[codes] < _LEAST_IN_STRATUM] = 0
        if 0 < (codes == 0).sum() < _LEAST_IN_STRATUM:
            codes[codes == 0] = codes.max()
        return codes, ["rows without entities", *(f"rows with {self.types[kind]!r}" for kind in rarest_last)]

    def slices(self, truth: Ragged) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        """The rows that hold an entity of each type."""
        found = entities.find(truth)
        for kind in np.unique(found.types):
            chosen = np.zeros(len(truth), dtype=bool)
            chosen[found.rows[found.types == kind]] = True
            yield ("entity", self.types[kind]), chosen

    def cautions(self, split: str, answers: Answers, truth: Ragged) -> list[str]:
        """Which types of the split are never found."""
        counts = [np.bincount(entities.find(one).types, minlength=len(self.types)) for one in (truth, answers[TAGS])]
        never = np.flatnonzero((counts[0] > 0) & (counts[1] == 0))
        if not len(never):
            return []
        shown = class_counts.commonest(self.types, counts[0], never)
        return [
            f"The tuned model never finds {len(never)} of the {int((counts[0] > 0).sum())} types of entity of {split}: "
            f"{shown}."
        ]

    def details(self, answers: Answers, truth: Ragged) -> Mapping[str, Any]:
        """``entities``: precision, recall, F1 and support of each type."""
        found, true = entities.find(answers[TAGS]), entities.find(truth)
        hits = found.types[entities.matching(found, true, len(truth.values))]
        counts = (np.bincount(one, minlength=len(self.types)).astype(float) for one in (true.types, found.types, hits))
        return {"entities": class_counts.by_label(ClassCounts(*counts), self.types)}

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        return [class_counts.shown(details["entities"], "type of entity", "entities")]

    def introduction(self) -> tuple[str, Sequence[str]]:
        return "Types of entity", self.types


class PlainTags(_Words):
    """Tags that make up no entities, such as parts of speech.

    Args:
        names: of the tags, in the order of the model's outputs.
    """

    name: ClassVar[str] = "plain-tags"
    exhibits: ClassVar[tuple[str, ...]] = ("where", "marked-examples")
    described: ClassVar[Described] = Described("tag_shares", "Tags", "tag", "{:.2%}")
    statistics: ClassVar[tuple[Statistic, ...]] = (
        _WORDS_RIGHT,
        Statistic("macro_f1", "macro-F1", _macro_f1, hub="f1", aliases=("f1_macro",), minds_rare=True),
        _ROWS_RIGHT,
    )
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["tags"],
        "properties": {
            "tags": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "tag": {"type": ["string", "null"], "description": "null where the word was cut off"},
                        "score": {"type": "number"},
                        "word": {"type": "string"},
                        "start": {"type": "integer"},
                        "end": {"type": "integer"},
                    },
                },
            }
        },
    }
    unsaid = UNSAID

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @property
    def possible(self) -> tuple[str, ...]:
        return self.names

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """``{"tags": [{"tag", "score", "word", "start", "end"}, ...]}``, one a word."""
        for row, question in enumerate(asked):
            told = zip(answers[TAGS].row(row).tolist(), answers[SCORES].row(row).tolist(), strict=True)
            yield {
                "tags": [
                    {
                        "tag": None if tag == UNSAID else self.names[tag],
                        "score": score,
                        "word": question.text[start:end],
                        "start": int(start),
                        "end": int(end),
                    }
                    for (start, end), (tag, score) in zip(question.words or (), told, strict=True)
                ]
            }

    def line(self, reply: Mapping[str, Any]) -> str:
        return " ".join(f"{one['word']}/{one['tag'] or '?'}" for one in reply["tags"])

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        return {"tags": reply["tags"] if nests else json.dumps(reply["tags"], ensure_ascii=False)}

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        one = {"score": 1 / 3, "word": "a", "start": 0, "end": 1}
        return [self.cells({"tags": [{"tag": name, **one} for name in self.names]}, nests)]

    def fields(self, options: Mapping[str, Any]) -> list[pa.Field]:
        import pyarrow as pa

        shape = [("tag", pa.string()), ("score", pa.float64()), ("word", pa.string())]
        return [pa.field("tags", pa.list_(pa.struct([*shape, ("start", pa.int64()), ("end", pa.int64())])))]

    def describe(self, truth: Ragged) -> dict[str, float]:
        """The share of each tag among the words."""
        counts = np.bincount(truth.values, minlength=len(self.names))
        return {name: float(ratio(count, counts.sum())) for name, count in zip(self.names, counts, strict=True)}

    def strata(self, truth: Ragged) -> tuple[NDArray[np.int64], Sequence[str]]:
        """All rows are alike."""
        return np.zeros(len(truth), dtype=np.int64), ["the rows"]

    def slices(self, truth: Ragged) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        return iter(())

    def cautions(self, split: str, answers: Answers, truth: Ragged) -> list[str]:
        never = np.setdiff1d(truth.values, answers[TAGS].values)
        if not len(never):
            return []
        shown = ", ".join(repr(self.names[one]) for one in never[:_MOST_NAMED])
        return [f"The tuned model never answers {len(never)} of the tags of {split}, such as {shown}."]

    def details(self, answers: Answers, truth: Ragged) -> Mapping[str, Any]:
        """``tags``: precision, recall, F1 and support of each."""
        found, true = answers[TAGS].values, truth.values
        both = (true, found[found >= 0], true[found == true])
        counts = (np.bincount(one, minlength=len(self.names)).astype(float) for one in both)
        return {"tags": class_counts.by_label(ClassCounts(*counts), self.names)}

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        return [class_counts.shown(details["tags"], "tag", "words")]

    def introduction(self) -> tuple[str, Sequence[str]]:
        return "Tags", self.names


def _lists(column: Ragged, kind: Any) -> Any:
    """Arrow's list of a row's values for each row."""
    import pyarrow as pa

    return pa.LargeListArray.from_arrays(pa.array(column.offsets, pa.int64()), pa.array(column.values, kind)).cast(
        pa.list_(kind)
    )


def _names_in(column: Ragged, names: Sequence[str]) -> Any:
    """A list of names for each row, null where there is none."""
    import pyarrow as pa

    places = pa.array(column.values, pa.int32(), mask=column.values == UNSAID)
    flat = pa.array(names).take(places)
    ends = pa.array(column.offsets, pa.int64())
    return pa.LargeListArray.from_arrays(ends, flat).cast(pa.list_(pa.string()))


def _flat(lists: Any) -> tuple[Any, NDArray[np.int64]]:
    """The values of all lists end to end, and where each begins."""
    whole = lists.combine_chunks()
    lengths = whole.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return whole.flatten(), np.concatenate([[0], np.cumsum(lengths)])


if TYPE_CHECKING:
    _is_one: type[Answer] = Tags
    _is_one_too: type[Answer] = PlainTags
