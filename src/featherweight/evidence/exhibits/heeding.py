"""Whether the tuned model heeds its prompts: how likely replies are behind their own and behind another row's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from featherweight.evidence.exhibits import Case, of_texts
from featherweight.records import parts
from featherweight.records.parts import Brief, Part

_KEY = "heeding"
_PLACES = ("other", "own")  # of the prompt: which row's


class Heeding:
    title: ClassVar[str] = "Prompts"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``heeding``: the tuned model's figures of replies behind another row's prompt (``other``) and behind their
        ``own``, and the two in pairs; nothing where rows have no prompts."""
        if (held := case.swapped) is None:
            return {}
        return {_KEY: {"rows": len(held.truth), **of_texts(held, _PLACES, case.seed)}}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        return [parts.text(said)] if (said := _said(metrics)) else []

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return _said(metrics)


def caution(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader must know before any figure: that the prompt makes no difference."""
    if _KEY not in metrics or metrics[_KEY]["comparison"]["verdict"] == "better":
        return []
    return [f"It is not shown that the tuned model heeds its prompts. {_said(metrics)}"]


def _said(metrics: Mapping[str, Any]) -> str:
    if _KEY not in metrics:
        return ""
    found, pair = metrics[_KEY], metrics[_KEY]["comparison"]
    other, own = (found[which][f"eval_{pair['metric']}"] for which in _PLACES)
    difference, interval = parts.difference(pair)
    return (
        f"The tuned model gives the replies of {found['rows']:,} rows {own:.4f} nats a token behind their own prompt "
        f"and {other:.4f} behind another row's ({difference}, {interval}, p = {pair['p_value']:.2g})."
    )
