"""``report.html``: one self-contained file, from a run's own files alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from featherweight import __version__
from featherweight.report import sections, tables
from featherweight.runs import RunDirectory


def one_run(run: RunDirectory, metrics: Mapping[str, Any]) -> str:
    """The page of one run, which is finished or about to be: ``metrics.json`` itself is not read."""
    return _render(
        title=run.path.resolve().name,
        verdict=metrics["headline"],
        lead=[tables.comparison_sentence(metrics["comparison"]), tables.against_baselines(metrics)],
        care=metrics["data_checks"]["warnings"],
        sections=sections.of_run(run, metrics),
    )


def several_runs(
    runs: Sequence[RunDirectory], metrics: Mapping[str, Mapping[str, Any]], together: Mapping[str, Any]
) -> str:
    """The page of several runs side by side.

    Args:
        metrics: content of ``metrics.json`` for each run, by path.
        together: what :func:`featherweight.workflow.compare` gave for them.
    """
    first, *others = together["comparisons"]
    better = [row["run"] for row in [first, *others] if row["verdict"] == "better" and row["p_value_holm"] < 0.05]
    verdict = (
        f"{', '.join(better)} {'is' if len(better) == 1 else 'are'} better than {first['against']}."
        if better
        else f"No run is shown to be better than {first['against']}."
    )
    return _render(
        title=f"{len(runs)} runs",
        verdict=verdict,
        lead=[tables.seeds(one) for one in together["seeds"]],
        care=[],
        sections=sections.of_several(runs, metrics, together),
    )


def one_curve(found: Mapping[str, Any]) -> str:
    """The page of a learning curve.

    Args:
        found: what :func:`featherweight.workflow.learning_curve` gave.
    """
    return _render(
        title=f"{found['recipe']}: learning curve",
        verdict=found["headline"],
        lead=[],
        care=[],
        sections=sections.of_curve(found),
    )


def _render(**context: Any) -> str:
    import jinja2

    assets = files("featherweight.report") / "assets"
    script = (assets / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(lambda name: (assets / name).read_text(encoding="utf-8")),
    )
    return environment.get_template("report.html.j2").render(
        **context,
        version=__version__,
        style=Markup((assets / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
