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
    from featherweight.workflow.planning import plan
    from featherweight.workflow.predicting import predict, predict_file
    from featherweight.workflow.running import load_run, run

_MODULE = {
    "compare": "comparing",
    "doctor": "inspecting",
    "evaluate": "evaluating",
    "export": "exporting",
    "inspect_data": "inspecting",
    "load_run": "running",
    "plan": "planning",
    "predict": "predicting",
    "predict_file": "predicting",
    "report": "comparing",
    "run": "running",
}

__all__ = [
    "compare", "doctor", "evaluate", "export", "inspect_data", "load_run", "plan", "predict", "predict_file", "report",
    "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'featherweight.workflow' has no attribute {name!r}")
    return getattr(import_module(f"featherweight.workflow.{_MODULE[name]}"), name)
