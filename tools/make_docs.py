"""Write what is generated in ``docs``: run ``make docs``. A test compares it with the code and the results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from featherweight import recipe

sys.path.insert(0, str(Path(__file__).parent))
import reliability

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results.json"
BEGIN, END = "<!-- results: made by `make docs` -->", "<!-- end of results -->"


def main() -> None:
    for path, content in generated().items():
        path.write_text(content, encoding="utf-8")


def generated() -> dict[Path, str]:
    """File to content."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {
        DOCS / "recipe.schema.json": json.dumps(recipe.json_schema(), indent=2) + "\n",
        DOCS / "performance.md": _filled(DOCS / "performance.md", results_table(results)),
        DOCS / "reliability.md": _filled(DOCS / "reliability.md", reliability.table() + "\n" + reliability.figures()),
    }


def _filled(page: Path, content: str) -> str:
    """The page with what is between its marks made anew."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + "\n\n" + content + "\n" + END + rest.partition(END)[2]


def results_table(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    lines = [
        "| case | first | second | samples/s | speed, median (range) | peak memory | loss differs by | MFU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in results["cases"].items():
        first, second = one["samples_per_second"]
        low, high = one["speed_ratio_range"]
        mfu = "" if one["mfu"] is None else f"{one['mfu']:.2f}"
        less, more = (f"{size / 1e9:.2f}" for size in reversed(one["peak_memory_bytes"]))
        lines.append(
            f"| `{name}` | {one['arms'][0]} | {one['arms'][1]} | {first:.1f}, {second:.1f} | "
            f"**{one['speed_ratio']:.2f}x** ({low:.2f} to {high:.2f}, n = {one['repeats']}) | "
            f"{more}, {less} GB ({one['memory_ratio']:.2f}x) | {one['loss_difference']:.0e} | {mfu} |"
        )
    peaks = {
        arm: [one["matrix_product_flops"][arm] / 1e9 for one in results["cases"].values()] for arm in ("stock", "ours")
    }
    used = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "featherweight")
    lines += [
        "",
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_bytes'] / 2**30:.0f} GiB; fp32 matrix "
        f"product {min(peaks['stock']):.0f} to {max(peaks['stock']):.0f} GFLOP/s as PyTorch makes it, "
        f"{min(peaks['ours']):.0f} to {max(peaks['ours']):.0f} as ours; {used}. Each row: "
        "`python benchmarks/run.py CASE`; all: `make benchmark`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
