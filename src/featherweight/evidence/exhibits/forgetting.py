"""What tuning did to texts that have nothing to do with what the model was tuned for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from featherweight.evidence.exhibits import MODELS, Case, of_texts
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part

_KEY = "forgetting"


class Forgetting:
    title: ClassVar[str] = "Forgetting"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``forgetting``: both models' figures on such texts, and the two in pairs; nothing where none were read."""
        if (held := case.beside) is None:
            return {}
        return {_KEY: {"texts": len(held.truth), **of_texts(held, MODELS, case.seed)}}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        return [parts.text(said)] if (said := self.sentence(metrics)) else []

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        if _KEY not in metrics:
            return []
        found = metrics[_KEY]
        pair = found["comparison"]
        before, after = (found[model][f"eval_{pair['metric']}"] for model in MODELS)
        columns = [Column("texts"), *(Column(name) for name in (*MODELS, "difference", "95 % interval", "p"))]
        row = [
            f"{found['texts']:,}",
            f"{before:.4f}",
            f"{after:.4f}",
            *parts.difference(pair),
            f"{pair['p_value']:.2g}",
        ]
        return [Brief("NLL a token of texts beside the task", columns, [row])]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        if _KEY not in metrics:
            return ""
        found = metrics[_KEY]
        pair, verdict = found["comparison"], found["comparison"]["verdict"]
        before, after = (found[model][f"eval_{pair['metric']}"] for model in MODELS)
        difference, interval = parts.difference(pair)
        what = {
            "worse": "Tuning made the model forget",
            "better": "Tuning made other texts likelier too",
            "no-difference": "No forgetting is shown",
        }[verdict]
        return (
            f"{what}: on {found['texts']:,} texts beside its task {before:.4f} nats a token before, {after:.4f} after "
            f"({difference}, {interval}, p = {pair['p_value']:.2g})."
        )
