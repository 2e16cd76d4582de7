"""Write what is generated in ``docs``: run ``make docs``. A test compares it with the code and the results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from featherweight import recipe

sys.path.insert(0, str(Path(__file__).parent))
import answers
import architectures
import figures
import metrics_schema
import reliability
import scaling
import tuners

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BEGIN, END = "<!-- results: made by `make docs` -->", "<!-- end of results -->"


def main() -> None:
    for path, content in generated().items():
        path.write_text(content, encoding="utf-8")


def generated() -> dict[Path, str]:
    """File to content."""
    schemas = {"recipe.schema.json": recipe.json_schema(), "metrics.schema.json": metrics_schema.schema()}
    schemas["sweep.schema.json"] = metrics_schema.schema_of_sweeps()
    filled = {
        "architectures.md": architectures.table(),
        "performance.md": figures.training() + "\n" + figures.sft() + "\n" + figures.plan() + figures.scale(),
        "defaults.md": figures.defaults() + "\n" + figures.minutes(),
        "methods.md": tuners.table() + "\n" + figures.methods() + "\n" + figures.precision(),
        "tasks.md": figures.tasks(),
        "reliability.md": reliability.table() + "\n" + reliability.figures(),
        "evidence.md": figures.evidence() + "\n" + answers.table(),
        "export.md": figures.predictor(),
        "sweep.md": figures.sweep(),
        "scaling.md": scaling.table(),
        "serving.md": figures.server(),
    }
    return {DOCS / name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()} | {
        DOCS / name: _filled(DOCS / name, content) for name, content in filled.items()
    }


def _filled(page: Path, content: str) -> str:
    """The page with what is between its marks made anew."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + "\n\n" + content + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    main()
