"""Ours against the stock script, in turn, on this machine: ``python benchmarks/run.py [CASE ...]``.

Every measurement is a process of its own (see ``arms.py``); the arms alternate, so that a machine whose speed drifts
is as unfair to one as to the other, and what is reported is the median of the ratios of neighbours, with their range.
Results go to ``benchmarks/results.json``, by machine, with the versions and the command; ``make docs`` makes the tables
in ``docs/performance.md`` from them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from arms import CASES

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"


def generation() -> str:
    """The processor's family and model, which its name may not tell."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    return ", ".join(f"{name.removeprefix('cpu ')} {found[name]}" for name in ("cpu family", "model") if name in found)


def measure(case: str, arm: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, str(HERE / "arms.py"), case, arm], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise SystemExit(f"{case} {arm}: {ended.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def matrix_peaks() -> tuple[float, float]:
    """Floating-point operations a second of the machine's fp32 matrix product, the best of several: PyTorch's own, and
    the library's that the engine chose."""
    code = (
        "import time, torch\n"
        "from featherweight.engine.fast.linear import product\n"
        "a = torch.randn(2048, 2048)\n"
        "for one in (torch.mm, product):\n"
        "    best = 1e9\n"
        "    for _ in range(12):\n"
        "        s = time.perf_counter(); one(a, a); best = min(best, time.perf_counter() - s)\n"
        "    print(2 * 2048**3 / best)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return float(found[0]), float(found[1])


def compare(case: str, repeats: int) -> dict[str, Any]:
    """Medians, and the ratios pair by pair."""
    pairs = []
    peaks = []
    for number in range(repeats):
        peaks.append(matrix_peaks())
        pair = [measure(case, arm) for arm in CASES[case].arms]
        pairs.append(pair)
        speed = pair[1]["samples_per_second"] / pair[0]["samples_per_second"]
        print(f"{case} {number + 1}/{repeats}: {speed:.2f}x", file=sys.stderr, flush=True)

    def ratios(key: str) -> list[float]:
        return sorted(second[key] / first[key] for first, second in pairs)

    speeds, memories = ratios("samples_per_second"), ratios("peak_memory_bytes")
    stock, ours = zip(*pairs, strict=True)
    return {
        "arms": CASES[case].arms,
        "rows": CASES[case].rows,
        "repeats": repeats,
        "samples_per_second": [median(one["samples_per_second"] for one in arm) for arm in (stock, ours)],
        "speed_ratio": median(speeds),
        "speed_ratio_range": [speeds[0], speeds[-1]],
        "peak_memory_bytes": [median(one["peak_memory_bytes"] for one in arm) for arm in (stock, ours)],
        "memory_ratio": median(memories),
        "loss_difference": max(abs(second["loss"] - first["loss"]) for first, second in pairs),
        "matrix_product_flops": {"stock": median(one for one, _ in peaks), "ours": median(one for _, one in peaks)},
        "mfu": None
        # What a run needs depends on where its adapters are; and the peak is that of fp32.
        if CASES[case].layers or "bf16" in CASES[case].arms
        else median(one["useful_flops"] / one["seconds"] / peak for one, (_, peak) in zip(ours, peaks, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    from featherweight.engine import hardware
    from featherweight.engine.fast import kernels
    from featherweight.runs.directory import package_versions

    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"machines": {}}
    machine = hardware.describe() | {"kernels": kernels.load() is not None}
    mine = known["machines"].setdefault(f"{machine['processor']}, {generation()}", {"cases": {}})
    mine |= {"machine": machine, "versions": package_versions()}
    for case in arguments.cases or CASES:
        mine["cases"][case] = compare(case, arguments.repeats) | {
            "date": datetime.now(UTC).date().isoformat(),
            "command": shlex.join(["python", "benchmarks/run.py", case, "--repeats", str(arguments.repeats)]),
        }
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
