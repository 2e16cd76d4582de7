"""How well each label is answered, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from featherweight.evidence.exhibits import MODELS, Case
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part

_IN_TERMINAL = 10
_FIGURES = ("precision", "recall", "f1")


class EachLabel:
    title: ClassVar[str] = "Each label"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``labels``: by model precision, recall, F1 and support (rows) of each label."""
        found = zip(MODELS, case.pair, strict=True)
        return {"labels": {model: case.kind.details(answers, case.truth)["labels"] for model, answers in found}}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        base, tuned = (metrics["labels"][model] for model in MODELS)
        rows = [
            parts.row(
                name, f"{one['support']:,}", f"{base[name]['f1']:.4f}", *(f"{one[figure]:.4f}" for figure in _FIGURES)
            )
            for name, one in sorted(tuned.items(), key=lambda item: -item[1]["support"])
        ]
        columns = ["label", "rows", "F1 before", "precision", "recall", "F1"]
        return [parts.table(f"On {metrics['evaluated_split']}, the commonest label first", columns, rows)]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        base, tuned = (metrics["labels"][model] for model in MODELS)
        worst = sorted((name for name in tuned if tuned[name]["support"]), key=lambda name: tuned[name]["f1"])
        some = f", the worst {_IN_TERMINAL} of {len(worst)} by F1" if len(worst) > _IN_TERMINAL else ""
        columns = [Column("label", words=True), Column("rows", 1), Column("F1 before"), Column("F1 after")]
        rows = [
            [name, f"{tuned[name]['support']:,}", f"{base[name]['f1']:.4f}", f"{tuned[name]['f1']:.4f}"]
            for name in worst[:_IN_TERMINAL]
        ]
        return [Brief(f"By label{some}", columns, rows)]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""
