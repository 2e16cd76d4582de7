"""Text: of a completion that is given, how likely each of its tokens is; of one that is not, what the model writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, Check, Described
from featherweight.errors import ConfigError
from featherweight.records.answers import Answers, Likeness
from featherweight.records.dialogues import Learning, Replying
from featherweight.records.parts import Brief
from featherweight.records.questions import GENERATION, Question
from featherweight.records.rows import Column, Ragged
from featherweight.statistics.additive import Additive, Floats, Statistic, of_columns, ratio

if TYPE_CHECKING:
    import pyarrow as pa

    from featherweight.recipe.sections import EvidenceSection

NLL, TOKENS, HITS = "nll", "tokens", "hits"  # of a completion: nats, how many, and how many are the likeliest
TEXT, STOPPED = "text", "stopped"  # of what was written: UTF-8, and whether the model ended it itself
LOG_PROBABILITY, HIT = 0, 1  # what the head's outputs are reduced to, for each token that is learned
WIDTH = 2
_PREFIX, _LANGUAGES = "source_prefix", ("source_lang", "target_lang")
_MOST_NATS = 700.0  # the exponential of more is infinite
_UNKNOWN = 30.0  # nats a token: more than any vocabulary's uniform guess


def _a_token(column: str, value: Callable[[Floats], Floats] = lambda one: one) -> Callable[[Answers, Any], Additive]:
    """A function of a column's mean over all tokens."""

    def make(answers: Answers, truth: Any) -> Additive:
        summed = [answers[name].astype(np.float64) for name in (column, TOKENS)]
        return of_columns(summed, lambda sums: value(ratio(sums[..., 0], sums[..., 1])))

    return make


def _perplexity(nll: Floats) -> Floats:
    return np.exp(np.minimum(nll, _MOST_NATS))


class Text:
    """Answers of a model that continues texts.

    Args:
        chat: whether a prompt that is a text is a user's message; None where it is one if the tokenizer has a chat
            template.
        template: a chat template instead of the tokenizer's own.
        learning: what of a row is learned, and measured.
        replying: how, where each text is answered by itself, by a decoder that has an encoder read it; None where a
            text goes on.
    """

    name: ClassVar[str] = "text"
    best: ClassVar[str] = "eval_loss"
    fewest_steps: ClassVar[int] = 100
    baselines: ClassVar[tuple[str, ...]] = ("unigram", "few-shot")
    probe: ClassVar[str] = ""
    checks: ClassVar[tuple[str, ...]] = ("twins", "shared-groups", "completions")
    exhibits: ClassVar[tuple[str, ...]] = (
        "written-answers",
        "heeding",
        "forgetting",
        "where",
        "completion-examples",
    )
    described: ClassVar[Described] = Described("completions", "Completions", "characters", "{:.4g}", shares=False)
    known: ClassVar[Mapping[str, Check]] = {
        "chat": (lambda value: value is None or isinstance(value, bool), "true or false"),
        "chat_template": (lambda value: value is None or isinstance(value, str), "a template"),
        "completion_only_loss": (lambda value: isinstance(value, bool), "true or false"),
        "assistant_only_loss": (lambda value: isinstance(value, bool), "true or false"),
        "source_prefix": (lambda value: value is None or isinstance(value, str), "a text"),
        "source_lang": (lambda value: value is None or isinstance(value, str), "a language"),
        "target_lang": (lambda value: value is None or isinstance(value, str), "a language"),
    }
    unfitted: ClassVar[Mapping[str, Any]] = {}
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["tokens"],
        "properties": {
            "text": {"type": "string", "description": "what the model writes"},
            "finish_reason": {"type": "string", "enum": ["stop", "length"]},
            "tokens": {"type": "integer", "description": "of the completion"},
            "prompt_tokens": {"type": "integer", "description": "of the prompt, where text is written over HTTP"},
            "nll": {"type": "number", "description": "of a completion that was given, nats a token"},
            "perplexity": {"type": "number"},
            "token_accuracy": {"type": "number", "description": "share of its tokens that are the likeliest"},
        },
    }
    reservation: ClassVar[str] = ""
    knows_nothing: ClassVar[tuple[str, str]] = ("unigram", "expecting each token as often as train has it")
    statistics: ClassVar[tuple[Statistic, ...]] = (
        Statistic("nll", "NLL a token", _a_token(NLL), less_is_better=True),
        Statistic("perplexity", "perplexity", _a_token(NLL, _perplexity), less_is_better=True, hub="perplexity"),
        Statistic("mean_token_accuracy", "token accuracy", _a_token(HITS), hub="accuracy"),
    )

    def __init__(
        self,
        chat: bool | None = None,
        template: str | None = None,
        learning: Learning | None = None,
        replying: Replying | None = None,
    ) -> None:
        self.chat, self.template, self.learning, self.replying = chat, template, learning or Learning(), replying

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        learning = (not facts.get(key, True) for key in ("completion_only_loss", "assistant_only_loss"))
        return cls(facts.get("chat"), facts.get("chat_template"), Learning(*learning), _replying(facts))

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {"chat": self.chat, **_replied(self.replying)}
        found |= {} if self.template is None else {"chat_template": self.template}
        found |= {"completion_only_loss": False} if self.learning.prompts else {}
        return found | ({"assistant_only_loss": False} if self.learning.everybody else {})

    def of_replies(self) -> Text:
        """Text of which what replies to a prompt is measured, whatever was learned."""
        return Text(self.chat, self.template, None, self.replying)

    @property
    def width(self) -> int:
        """Of what the engine makes of the vocabulary's logits."""
        return WIDTH

    @property
    def possible(self) -> tuple[str, ...]:
        return ()

    def of_outputs(self, outputs: Column, options: Mapping[str, Any]) -> Answers:
        """From the log-probability of each token that is learned and whether it is the likeliest; (reads, 2)."""
        assert isinstance(outputs, Ragged)
        nll, hits = _of_each(-outputs.values[:, LOG_PROBABILITY], outputs), _of_each(outputs.values[:, HIT], outputs)
        return Answers({NLL: nll, TOKENS: outputs.lengths, HITS: np.rint(hits).astype(np.int64)})

    @staticmethod
    def of_written(texts: Sequence[str], tokens: Sequence[int], stopped: Sequence[bool]) -> Answers:
        """What was written, row by row."""
        return Answers(
            {TEXT: as_bytes(texts), TOKENS: np.asarray(tokens, dtype=np.int64), STOPPED: np.asarray(stopped, bool)}
        )

    def options(self, name: str, fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """How to write, by ``GenerationConfig``'s names. Raises ConfigError for what is fitted to other answers."""
        for flag in ("calibrated", "max_error_rate"):
            if asked.get(flag) not in (None, False):
                raise ConfigError(f"--{flag.replace('_', '-')}: {name} answers with text; leave it out")
        return {key: asked[key] for key in GENERATION if asked.get(key)}

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """``text``, ``tokens`` and ``finish_reason`` of what was written; ``nll``, ``perplexity``, ``tokens`` and
        ``token_accuracy`` of completions that were given."""
        if TEXT in answers.columns:
            for row, (tokens, stopped) in enumerate(zip(answers[TOKENS].tolist(), answers[STOPPED], strict=True)):
                reason = "stop" if stopped else "length"
                yield {"text": said(answers[TEXT], row), "tokens": tokens, "finish_reason": reason}
            return
        for nll, tokens, hits in zip(*(answers[name].tolist() for name in (NLL, TOKENS, HITS)), strict=True):
            mean = nll / max(tokens, 1)
            perplexity = float(_perplexity(np.asarray(mean)))
            yield {"nll": mean, "perplexity": perplexity, "tokens": tokens, "token_accuracy": hits / max(tokens, 1)}

    def line(self, reply: Mapping[str, Any]) -> str:
        if "text" in reply:
            return str(reply["text"]) + ("" if reply["finish_reason"] == "stop" else " …")
        return f"NLL {reply['nll']:.4f}  ({reply['tokens']:,} tokens)"

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        """``prediction``, what was written, ``prediction_tokens`` and ``prediction_finish_reason``; of completions that
        were given ``prediction_nll``, ``prediction_tokens`` and ``prediction_token_accuracy``."""
        if "text" in reply:
            ended = {"prediction_finish_reason": reply["finish_reason"]}
            return {"prediction": reply["text"], "prediction_tokens": reply["tokens"], **ended}
        names = ("nll", "tokens", "token_accuracy")
        return {f"prediction_{name}": reply[name] for name in names}

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self.cells({"text": "a", "tokens": 1, "finish_reason": "length"}, nests)]

    def fields(self, options: Mapping[str, Any]) -> list[pa.Field]:
        import pyarrow as pa

        kinds = {"prediction": pa.large_string(), "prediction_tokens": pa.int64()}
        return [pa.field(name, kinds.get(name, pa.string())) for name in self.possible_cells(True, options)[0]]

    def table(self, answers: Answers, truth: Ragged) -> pa.Table:
        """``label``, the completion, and what is known of it, or what was written."""
        import pyarrow as pa

        columns = {"label": _strings(truth)}
        columns |= {
            name: _strings(column) if isinstance(column, Ragged) else pa.array(column)
            for name, column in answers.columns.items()
        }
        chat = {"chat": {None: "", True: "yes", False: "no"}[self.chat]}
        return pa.table(columns, metadata={**chat, **_replied(self.replying)})

    @classmethod
    def of_table(cls, table: pa.Table) -> tuple[Self, Answers, Ragged]:
        known, keys = table.schema.metadata, ("chat", _PREFIX, *_LANGUAGES)
        said = {key: known[key.encode()].decode() for key in keys if key.encode() in known}
        kind = cls({"": None, "yes": True, "no": False}[said["chat"]], replying=_replying(said))
        truth = as_bytes(table["label"].to_pylist())
        found: dict[str, Column] = {
            name: as_bytes(table[name].to_pylist()) if name == TEXT else table[name].to_numpy()
            for name in table.column_names
            if name in (NLL, TOKENS, HITS, TEXT, STOPPED)
        }
        return kind, Answers({name: found[name] for name in (found if TEXT in found else (NLL, TOKENS, HITS))}), truth

    def taken_from(self, other: Text, answers: Answers, truth: Ragged) -> tuple[Answers, Ragged] | None:
        """As they are."""
        return answers, truth

    def confirm(
        self,
        verdict: str,
        pair: tuple[Answers, Answers],
        truth: Ragged,
        groups: Sequence[str | None] | None,
        seed: int,
    ) -> str:
        return verdict

    def describe(self, truth: Ragged) -> dict[str, float]:
        lengths = _characters(truth)
        return {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "95th percentile": float(np.percentile(lengths, 95)),
            "longest": float(lengths.max()),
        }

    def said(self, truth: Ragged, row: int) -> str:
        return said(truth, row)

    def strata(self, truth: Ragged) -> tuple[NDArray[np.int64], Sequence[str]]:
        """All are of one part."""
        return np.zeros(len(truth), dtype=np.int64), ["the completions"]

    def slices(self, truth: Ragged) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        """Quarters of the rows by the length of their completion, fewer where many are equally long."""
        lengths = _characters(truth)
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 5), method="higher"))
        for index, (low, high) in enumerate(pairwise(edges if len(edges) > 1 else [edges[0], edges[0]])):
            chosen = (lengths >= low if index == 0 else lengths > low) & (lengths <= high)
            if chosen.any():
                yield ("completion", f"{lengths[chosen].min():,} to {high:,} characters"), chosen

    def fit(
        self,
        fitting: tuple[Answers, Ragged],
        reporting: tuple[Answers, Ragged],
        asked: EvidenceSection | None = None,
    ) -> dict[str, Any]:
        """Nothing is."""
        return {}

    def losses(self, outputs: Column, truth: Ragged) -> tuple[float, int]:
        assert isinstance(outputs, Ragged)
        return float(-outputs.values[:, LOG_PROBABILITY].astype(np.float64).sum()), len(outputs.values)

    def uninformed_loss(self, truth: Ragged) -> float:
        """Without the tokens nobody knows, so it is more than any guess costs."""
        return _UNKNOWN

    def cautions(self, split: str, answers: Answers, truth: Ragged) -> list[str]:
        """Whether rows have no token that is learned."""
        empty = int((answers[TOKENS] == 0).sum())
        if not empty:
            return []
        return [f"Of {empty:,} {split} rows no token of the completion is left, so they count for nothing."]

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        """By how many nats a token the completions differ; of what was written, whether it is the same."""
        if TEXT in one.columns:
            same = np.asarray([a == b for a, b in zip(all_said(one[TEXT]), all_said(other[TEXT]), strict=True)])
            return Likeness(float(same.mean()), (~same).astype(np.float64), "text", "texts", tolerance=0.0)
        differences = np.abs(one[NLL] - other[NLL]) / np.maximum(one[TOKENS], 1)
        agreement = float((one[HITS] == other[HITS]).mean())
        return Likeness(agreement, differences, "token's NLL", "likeliest tokens", tolerance=1e-4)

    def details(self, answers: Answers, truth: Ragged) -> Mapping[str, Any]:
        return {}

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        return []

    def introduction(self) -> tuple[str, Sequence[str]]:
        if self.replying is not None:
            return "Text", ["what is written in reply to a text"]
        return "Text", ["the assistant's next message" if self.chat else "how a text goes on"]


def _replied(replying: Replying | None) -> dict[str, str]:
    """For ``featherweight.json``; a prefix, were it empty, says that texts are answered one by one."""
    if replying is None:
        return {}
    return {_PREFIX: replying.prefix, **dict(zip(_LANGUAGES, replying.languages or (), strict=False))}


def _replying(facts: Mapping[str, Any]) -> Replying | None:
    if (prefix := facts.get(_PREFIX)) is None:
        return None
    source, target = (facts.get(key) for key in _LANGUAGES)
    return Replying(prefix, None if source is None or target is None else (source, target))


def as_bytes(texts: Sequence[str]) -> Ragged:
    """Texts end to end, in UTF-8."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return Ragged(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)


def said(texts: Ragged, row: int) -> str:
    """One of them."""
    return texts.row(row).tobytes().decode()


def all_said(texts: Column) -> list[str]:
    """Every one of them, in their order."""
    assert isinstance(texts, Ragged)
    return [said(texts, row) for row in range(len(texts))]


def _characters(texts: Ragged) -> NDArray[np.int64]:
    """Of each; a byte that goes on with a character is none."""
    begun = np.concatenate([[0], np.cumsum((texts.values & 0xC0) != 0x80)])
    return np.asarray(begun[texts.offsets[1:]] - begun[texts.offsets[:-1]], dtype=np.int64)


def _strings(texts: Ragged) -> Any:
    import pyarrow as pa

    return pa.array(all_said(texts), pa.large_string())


def _of_each(values: NDArray[Any], outputs: Ragged) -> Floats:
    """Sums over each row's entries, in fp64; rows may have none."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(sums[outputs.offsets[1:]] - sums[outputs.offsets[:-1]])


if TYPE_CHECKING:
    _is_one: type[Answer] = Text
