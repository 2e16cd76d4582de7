"""What is wrong with completions: one prompt with several, and one completion for nearly everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.evidence.data import duplicates
from featherweight.records import parts
from featherweight.records.parts import Brief, Part

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

_MOST_SHOWN = 20
_COMMON = 0.5  # so large a share of one completion teaches little else


class Completions:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``completions_found``: ``several``, rows whose prompt also stands there with another completion, the first
        of them with their place; and ``commonest``, the commonest completion of train with its share, where it is more
        than one row's."""
        prompts = np.concatenate([look.prints[name].normal for name in look.splits])
        said = [
            duplicates.normal_form(look.kind.said(split.truth, row))
            for split in look.splits.values()
            for row in range(len(split))
        ]
        _, codes = np.unique(prompts, return_inverse=True)
        _, answers = np.unique(np.asarray(said, dtype=object).astype(str), return_inverse=True)
        different = np.unique(np.stack([codes, answers]), axis=1)[0]
        counts = np.bincount(different, minlength=int(codes.max()) + 1)
        is_alone = np.asarray([prompt == completion for prompt, completion in zip(_texts(look), said, strict=True)])
        several = np.flatnonzero((counts[codes] > 1) & ~is_alone)  # of a text that is learned whole there is no prompt
        rows = several[np.argsort(codes[several], kind="stable")]
        first = look.first
        commonest, count = Counter(look.kind.said(first.truth, row) for row in range(len(first))).most_common(1)[0]
        return {
            "completions_found": {
                "several": len(rows),
                "examples": [look.shown_of_all(int(row)) for row in rows[:_MOST_SHOWN]],
                "commonest": {"text": parts.shortened(commonest), "share": count / len(first)} if count > 1 else None,
            }
        }

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        count, commonest = found["completions_found"]["several"], found["completions_found"]["commonest"]
        lines = [f"{count:,} rows have a prompt that also stands there with another completion."] if count else []
        if commonest is not None and commonest["share"] >= _COMMON:
            lines.append(
                f"{commonest['share']:.1%} of train's completions are one and the same: {commonest['text']!r}."
            )
        return lines

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        rows = [parts.row(str(one["row"]), one["text"], one["label"]) for one in found["completions_found"]["examples"]]
        return (
            [parts.table("Same prompt, other completions", ["row", "prompt", "completion"], rows, "wordy")]
            if rows
            else []
        )

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []


def _texts(look: Look) -> list[str]:
    return [duplicates.normal_form(text) for split in look.splits.values() for text in split.all_texts()]
