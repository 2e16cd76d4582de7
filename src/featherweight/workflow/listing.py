"""The methods of tuning, as ``featherweight methods`` lists them."""

from __future__ import annotations

from typing import Any

from featherweight.errors import ConfigError, ModelError
from featherweight.registry import METHODS
from featherweight.registry.elsewhere import REFUSED_TUNERS
from featherweight.report import tables
from featherweight.report.console import Console


def list_methods(model: str | None = None, *, console: Console | None = None) -> dict[str, Any]:
    """Every method by its name: what it trains, whether it merges and is packed, and of a model whether it tunes it.

    Args:
        model: as in a recipe; its weights are not read.

    Raises:
        ConfigError: there is no such model.
        ModelError: its configuration can't be read, or is none of a model that reads texts.
    """
    console = console or Console(quiet=True)
    modules = None if model is None else _modules(model)
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(METHODS):
        method = METHODS[name]
        facts = {"trains": method.trains, "merges": method.merges, "packs": method.packs}
        found[name] = facts if modules is None else facts | {"refuses": _refusal(method, modules)}
    refused = dict(sorted(REFUSED_TUNERS.items()))
    console.show(tables.methods(found))
    if reasons := {name: one["refuses"] for name, one in found.items() if one.get("refuses")}:
        console.show(tables.key_values("Refused for this model", reasons))
    console.show(tables.key_values("Of PEFT's, and refused for any", refused))
    return {"methods": found, "refused": refused}


def _modules(model: str) -> Any:
    from featherweight.sources import models
    from featherweight.tasks import heads

    source = models.find(model)
    modules = heads.skeleton(heads.HeadPlan(heads.SEQUENCE, None, 2), source)
    if modules is None:
        raise ModelError(f"{model}: transformers has no classifier of its architecture")
    return modules


def _refusal(method: Any, modules: Any) -> str | None:
    """Why a model can't be tuned by a method; None where it can."""
    try:
        method(method.Options()).require_targets(modules)
    except ConfigError as error:
        return str(error)
    return None
