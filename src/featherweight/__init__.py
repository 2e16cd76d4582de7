"""Featherweight: lightweight fine-tuning of foundation models, with proof.

    >>> import featherweight
    >>> recipe = featherweight.load_recipe("recipes/demo.toml")
    >>> record = featherweight.run(recipe, output_dir="runs/demo")
    >>> record.metrics["comparison"]["verdict"]
    'better'

Importing this package imports neither torch nor transformers; calling it does, when it has to.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load_recipe": "featherweight.recipe:load",
    "Recipe": "featherweight.recipe:Recipe",
    "load_run": "featherweight.workflow:load_run",
    "run": "featherweight.workflow:run",
    "run_on_ray": "featherweight.workflow:run_on_ray",
    "run_seeds": "featherweight.workflow:run_seeds",
    "sweep": "featherweight.workflow:sweep",
    "sweep_on_ray": "featherweight.workflow:sweep_on_ray",
    "Cluster": "featherweight.workflow:Cluster",
    "evaluate": "featherweight.workflow:evaluate",
    "compare": "featherweight.workflow:compare",
    "predict": "featherweight.workflow:predict",
    "learning_curve": "featherweight.workflow:learning_curve",
    "export_run": "featherweight.workflow:export",  # featherweight.export is the package
    "push": "featherweight.workflow:push",
    "write_report": "featherweight.workflow:report",
    "load_predictor": "featherweight.inference.predictor:load_predictor",
    "FeatherweightError": "featherweight.errors:FeatherweightError",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'featherweight' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
