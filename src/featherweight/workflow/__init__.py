"""The one place that puts the stages together, a module for each command. Read :func:`running.run` first."""

from featherweight.workflow.comparing import compare, report
from featherweight.workflow.evaluating import evaluate
from featherweight.workflow.inspecting import doctor, inspect_data
from featherweight.workflow.inspecting_artefacts import inspect_adapter, inspect_model, inspect_run
from featherweight.workflow.learning_curve import learning_curve
from featherweight.workflow.planning import plan
from featherweight.workflow.predicting import predict
from featherweight.workflow.running import load_run, run
from featherweight.workflow.serving import serve

__all__ = [
    "compare",
    "doctor",
    "evaluate",
    "inspect_adapter",
    "inspect_data",
    "inspect_model",
    "inspect_run",
    "learning_curve",
    "load_run",
    "plan",
    "predict",
    "report",
    "run",
    "serve",
]
