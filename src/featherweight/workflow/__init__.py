"""The one place that puts the stages together, a module for each command. Read :func:`running.run` first.

Nothing is imported until it is asked for: answering with an export needs a hundredth of what tuning needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featherweight.workflow.comparing import compare, report
    from featherweight.workflow.evaluating import evaluate
    from featherweight.workflow.exporting import export
    from featherweight.workflow.inspecting import doctor, inspect_data
    from featherweight.workflow.inspecting_artefacts import inspect_adapter, inspect_model, inspect_run
    from featherweight.workflow.learning import learning_curve
    from featherweight.workflow.listing import list_methods
    from featherweight.workflow.on_ray import Cluster, run_on_ray
    from featherweight.workflow.planning import plan
    from featherweight.workflow.predicting import predict, predict_file
    from featherweight.workflow.pushing import push
    from featherweight.workflow.running import load_run, run
    from featherweight.workflow.seeding import run_seeds
    from featherweight.workflow.serving import serve
    from featherweight.workflow.sweeping import sweep
    from featherweight.workflow.trials_on_ray import sweep_on_ray

_MODULE = {
    "Cluster": "on_ray",
    "compare": "comparing",
    "doctor": "inspecting",
    "evaluate": "evaluating",
    "export": "exporting",
    "inspect_adapter": "inspecting_artefacts",
    "inspect_data": "inspecting",
    "inspect_model": "inspecting_artefacts",
    "inspect_run": "inspecting_artefacts",
    "learning_curve": "learning",
    "list_methods": "listing",
    "load_run": "running",
    "plan": "planning",
    "predict": "predicting",
    "predict_file": "predicting",
    "push": "pushing",
    "report": "comparing",
    "run": "running",
    "run_on_ray": "on_ray",
    "run_seeds": "seeding",
    "serve": "serving",
    "sweep": "sweeping",
    "sweep_on_ray": "trials_on_ray",
}

__all__ = [
    "Cluster", "compare", "doctor", "evaluate", "export", "inspect_adapter", "inspect_data", "inspect_model",
    "inspect_run", "learning_curve", "list_methods", "load_run", "plan", "predict", "predict_file", "push", "report",
    "run", "run_on_ray", "run_seeds", "serve", "sweep", "sweep_on_ray",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'featherweight.workflow' has no attribute {name!r}")
    return getattr(import_module(f"featherweight.workflow.{_MODULE[name]}"), name)
