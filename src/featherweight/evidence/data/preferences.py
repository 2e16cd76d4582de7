"""What is wrong with pairs of answers: a model that only knows their length, and pairs that contradict one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.preference import both, characters
from featherweight.evidence.data import duplicates
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

_MOST_SHOWN = 20
_TELLS, _FEWEST = 0.7, 20  # of pairs: the share in which length alone is right that teaches length, and how many tell


class Preferences:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``preferences``: for each split how many ``pairs``, the ``mean`` length of the chosen and of the rejected
        answers in characters, and the shares in which the chosen one is ``longer`` and ``shorter``; and
        ``contradicted``, rows that stand there the other way round too, the first of them with their place."""
        lengths = {name: characters(split.truth) for name, split in look.splits.items()}
        rows = _contradicted(look)
        return {
            "preferences": {
                "lengths": {
                    name: {
                        "pairs": len(one),
                        "mean": one.mean(axis=0).tolist(),
                        "longer": float((one[:, 0] > one[:, 1]).mean()),
                        "shorter": float((one[:, 0] < one[:, 1]).mean()),
                    }
                    for name, one in lengths.items()
                },
                "contradicted": len(rows),
                "examples": [look.shown_of_all(int(row)) for row in rows[:_MOST_SHOWN]],
            }
        }

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        told = found["preferences"]
        name, one = next(iter(told["lengths"].items()))
        lines = [
            f"In {one[which]:.1%} of the {name} pairs the chosen answer is the {which} one, so a model may learn "
            "length and nothing else; see the rival longer-answer, and the slices by which answer is the longer one."
            for which in ("longer", "shorter")
            if one[which] >= _TELLS and one["pairs"] >= _FEWEST
        ]
        if count := told["contradicted"]:
            lines.append(f"{count:,} rows stand there the other way round too: what is chosen here is rejected there.")
        return lines

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        told = found["preferences"]
        lengths = parts.table(
            "Length of the answers, in characters", _COLUMNS, [parts.row(*one) for one in _lengths(told)]
        )
        if not told["examples"]:
            return [lengths]
        rows = [parts.row(str(one["row"]), one["text"], one["label"]) for one in told["examples"]]
        return [lengths, parts.table("Pairs that contradict others", ["row", "prompt", "chosen"], rows, "wordy")]

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        columns = [Column(name, place) for place, name in enumerate(_COLUMNS)]
        return [Brief("Length of the answers", columns, _lengths(found["preferences"]))]


_COLUMNS = ["split", "pairs", "chosen, mean", "rejected, mean", "chosen longer", "chosen shorter"]


def _lengths(told: Mapping[str, Any]) -> list[list[str]]:
    """A row for each split."""
    found = []
    for name, one in told["lengths"].items():
        means, shares = (f"{mean:.0f}" for mean in one["mean"]), (f"{one[key]:.1%}" for key in ("longer", "shorter"))
        found.append([name, f"{one['pairs']:,}", *means, *shares])
    return found


def _contradicted(look: Look) -> NDArray[np.int64]:
    """Rows, counted over all splits, whose prompt and answers also stand there the other way round."""
    prompts = np.concatenate([look.prints[name].normal for name in look.splits])
    texts = [both(split.truth, row) for split in look.splits.values() for row in range(len(split))]
    one, other = (duplicates.fingerprints(side).normal for side in zip(*texts, strict=True))
    turned = np.isin(_keys(prompts, one, other), _keys(prompts, other, one))
    return np.flatnonzero(turned & (one != other))


def _keys(*digests: duplicates.Digests) -> NDArray[np.void]:
    """Several digests of each row as one thing that can be compared."""
    return np.stack(digests, axis=1).view([(str(place), np.uint64) for place in range(len(digests))])[:, 0]
