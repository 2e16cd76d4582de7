"""Sequence to sequence: an encoder reads a text, a decoder writes what is asked of it, a summary or a translation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from featherweight.answers.text import Text
from featherweight.answers.written import BLEU, CHRF, EXACT
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Replying
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Split
from featherweight.registry import deferred
from featherweight.tasks import heads
from featherweight.tasks.causal_lm import CausalLM
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.loading import Loading
from featherweight.tasks.reading import replying
from featherweight.tasks.reading.dialogues import DialogueColumn

if TYPE_CHECKING:
    from featherweight.recipe import DataSection
    from featherweight.tasks import Task


class Seq2SeqLM(CausalLM):
    """The reply to a text: each of its tokens is learned as a decoder's next one, by the loss of text that goes on."""

    name: ClassVar[str] = "seq2seq-lm"
    peft_task_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    hub_tag: ClassVar[str] = "text2text-generation"
    written: ClassVar[tuple[str, ...]] = ("rougeL", "rouge1", "rouge2", "rougeLsum", BLEU, CHRF, EXACT)
    Columns: ClassVar[type[DataSection]] = deferred("featherweight.tasks.columns:ReplyColumns")

    def __init__(self, answer: Text) -> None:
        super().__init__(answer)
        self.replying = answer.replying or Replying()

    @staticmethod
    def column(split: Split, section: DataSection) -> DialogueColumn:
        return replying.read(split, section)

    @classmethod
    def of_model(cls, config: Any) -> Self | None:
        return cls(Text(chat=False, replying=Replying())) if heads.replies(config) else None

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        """With what the adapter's texts begin with and its languages, where the section leaves them open."""
        keys = {"source_prefix", "source_lang", "target_lang", "max_target_length"}
        return section.model_copy(update={key: known[key] for key in keys - section.model_fields_set if key in known})

    def questions(self, given: Sequence[Any]) -> list[Question]:
        """Of a text, or of ``{"prompt": ..., "completion": ...}``, whose completion is measured."""
        return [Question(one.asked, dialogue=one) for one in map(replying.of_given, given)]

    def tokenise(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        return replying.encode(asked, tokenizer, cutting, self.replying.prefix)

    def encode(self, examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
        return replying.of_rows(examples, tokenizer, cutting, self.replying)

    def head(self) -> HeadPlan:
        return HeadPlan(heads.SEQ2SEQ, None, 0, is_pretrained=True, languages=self.replying.languages)

    def loading(self) -> Loading:
        after = [
            *_spoken(self.replying),
            f'inputs = tokenizer({self.replying.prefix + "A text."!r}, return_tensors="pt")',
            "# tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0], skip_special_tokens=True) replies",
        ]
        return Loading(self.head().auto_class, after=after)

    @classmethod
    def _of(cls, column: DialogueColumn, section: Any) -> Self:
        languages = None if section.source_lang is None else (section.source_lang, section.target_lang)
        return cls(Text(chat=False, replying=Replying(section.source_prefix, languages)))


def _spoken(how: Replying) -> list[str]:
    """Lines for a tokenizer that knows several languages."""
    if how.languages is None:
        return []
    return [
        'if hasattr(tokenizer, "tgt_lang"):  # it knows several languages',
        f"    tokenizer.src_lang, tokenizer.tgt_lang = {how.languages!r}",
        '    first = tokenizer(text_target="a").input_ids[0]',
        "    if first in tokenizer.all_special_ids:  # what is written begins with its language",
        "        model.generation_config.forced_bos_token_id = first",
    ]


if TYPE_CHECKING:
    _is_one: type[Task] = Seq2SeqLM
