"""Write what is generated in ``docs``: run ``make docs``. A test compares it with the code."""

from __future__ import annotations

import json
from pathlib import Path

from featherweight import recipe

DOCS = Path(__file__).parent.parent / "docs"

if __name__ == "__main__":
    (DOCS / "recipe.schema.json").write_text(json.dumps(recipe.json_schema(), indent=2) + "\n", encoding="utf-8")
