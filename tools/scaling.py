"""What several processes take and keep, for ``docs/scaling.md``, from what ``benchmarks/fleet.py`` left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "fleet.json"
NETWORKS = {"1 Gb/s, 0.2 ms": (125e6, 2e-4), "10 Gb/s, 0.05 ms": (1.25e9, 5e-5)}  # bytes and seconds
WORKERS = (2, 4, 8, 64)
ROWS = (32, 8)  # of a step in each worker


def table() -> str:
    """Every part that was measured."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    parts = {"speed": _speed, "kills": _kills, "parts": _parts, "shards": _shards}
    lines = [line for name, said in parts.items() if name in found for line in (*said(found[name]), "")]
    last = found[max(found, key=lambda name: str(found[name]["date"]))]
    machine = last["machine"]
    return "\n".join(
        [
            *lines,
            f"`python benchmarks/fleet.py`, {machine['cores']} cores of {machine['processor']}, {last['date']}.",
            "",
        ]
    )


def _speed(found: Mapping[str, Any]) -> list[str]:
    low, high = min(found["ratios"]), max(found["ratios"])
    one, several = (sorted(found[key])[len(found[key]) // 2] for key in ("rows_per_second_of_one", "rows_per_second"))
    return [
        f"On the same cores {found['processes']} processes of one thread train at **{found['ratio']:.2f}x** "
        f"({low:.2f} to {high:.2f}, n = {len(found['ratios'])}) of one process with all threads: {several:.0f} rows/s "
        f"beside {one:.0f}, MiniLM-L6 by the demo's recipe, 32 rows a step, in pairs."
    ]


def _kills(found: Mapping[str, Any]) -> list[str]:
    kills = found["kills"]
    return [
        f"One of two processes killed at random, at a random step, {len(kills)} times: {found['same']} of {len(kills)} "
        "runs went on to the bytes of a run that nobody killed."
    ]


def _shards(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "SmolLM2-135M in 2 processes, each with all of the base and each with its part (`training.fsdp`), in pairs:",
        "",
        "| base | of it a process keeps | own memory at most, whole | shared out | speed, shared out beside whole |",
        "|---|---|---|---|---|",
    ]
    for dtype, one in found["dtypes"].items():
        whole, shared = (f"{size / 1e9:.2f} GB" for size in one["own_bytes"])
        ratios, kept = one["ratios"], one["kept_bytes"] / 1e6
        lines.append(
            f"| {dtype} | {kept:.0f} of {2 * kept:.0f} MB | {whole} | {shared} | {median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)}) |"
        )
    lines += [
        "",
        "So on the processors of one machine it gains nothing: a base in fp32 that is not shared out is a view of the "
        "model's file, which all processes have in common and which is no memory of their own. It is for devices, and "
        "for machines that are each too small.",
    ]
    return lines


def _parts(found: Mapping[str, Any]) -> list[str]:
    payload, compute = found["payload_bytes"], found["seconds_of_one_thread"] / 32
    lines = [
        "| processes on 2 cores | latency of a sum | bandwidth | a step: expected | measured |",
        "|---|---|---|---|---|",
    ]
    for count, one in found["fleets"].items():
        lines.append(
            f"| {count} | {1e3 * one['latency_seconds']:.2f} ms | {one['bytes_per_second'] / 1e9:.2f} GB/s | "
            f"{1e3 * one['expected_step_seconds']:.0f} ms | {1e3 * one['step_seconds']:.0f} ms |"
        )
    lines += [
        "",
        f"A step's sum is of {payload / 1e6:.1f} MB (what trains, and a few numbers), a row takes "
        f"{1e3 * compute:.1f} ms of one thread. Expected: seconds = compute / cores + latency + bytes / bandwidth, "
        "of a step of 32 rows in all.",
        "The model leaves out what the cores of a machine have in common: memory, and the clock that all of them keep.",
        "",
        "Planned for workers of one thread each on machines of their own, by the same model with a ring's sum "
        "(2 (N - 1) times the network's latency and an Nth of the bytes): the share of N times one worker's speed.",
        "",
        f"| rows of a step in each, network | {' | '.join(f'{count} workers' for count in WORKERS)} |",
        f"|---|{'---|' * len(WORKERS)}",
    ]
    for rows in ROWS:
        for name, (bandwidth, latency) in NETWORKS.items():
            step = rows * compute
            shares = [step / (step + 2 * (n - 1) * (latency + payload / n / bandwidth)) for n in WORKERS]
            lines.append(f"| {rows}, {name} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return lines
