"""Ours against a naive server under load, on this machine: ``python benchmarks/serve.py RUN [PART ...]``.

RUN is a finished LoRA run, such as ``runs/demo``; its own validation texts are asked, one a request. Parts: ``closed``
(1 to 64 clients), ``open`` (at rates near the naive server's and our capacity), ``overload`` (10 times our capacity for
a minute), ``memory`` (8 adapters against 1). Results go to ``benchmarks/serve.json``, and by ``make docs`` into
``docs/serving.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import load

HERE = Path(__file__).parent
RESULTS = HERE / "serve.json"
CLIENTS = (1, 4, 16, 64)


def texts_of(run: str) -> list[str]:
    from featherweight import recipe as recipes
    from featherweight.registry import TASKS
    from featherweight.sources import data

    recipe = recipes.load(Path(run) / "recipe.toml")
    _, examples = TASKS[recipe.task].prepare(data.load(recipe.data), recipe.data, recipe.training.seed)
    return list(examples["validation"].all_texts())


def memory(process: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@contextlib.contextmanager
def server(arm: str, runs: list[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server of one arm in a process of its own, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = {
        "naive": [sys.executable, str(HERE / "naive_server.py"), runs[0], str(port)],
        "ours": [sys.executable, "-m", "featherweight", "serve", *runs, "--port", str(port)],
    }[arm]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                time.sleep(0.1)
            yield port, process
        finally:
            process.terminate()
            process.wait(timeout=60)


def requests_of(run: str, model: str | None = None) -> list[bytes]:
    named = {"model": model} if model else {}
    return [load.request("/v1/predict", json.dumps({"texts": [text]} | named).encode()) for text in texts_of(run)]


def closed(run: str) -> dict[str, Any]:
    requests = requests_of(run)
    found: dict[str, Any] = {}
    for arm in ("naive", "ours"):
        with server(arm, [run]) as (port, _):
            asyncio.run(load.closed(port, requests, 4, 2))  # warm-up
            found[arm] = {
                str(clients): asyncio.run(load.closed(port, requests, clients, 5)).summary() for clients in CLIENTS
            }
    naive, ours = (
        [found[arm][str(clients)]["requests_per_second"] for clients in CLIENTS] for arm in ("naive", "ours")
    )
    found["speed_ratio"] = {str(key): mine / theirs for key, mine, theirs in zip(CLIENTS, ours, naive, strict=True)}
    return found


def opened(run: str) -> dict[str, Any]:
    """Both at 80 % of what the naive server can do with 16 clients, and ours at 80 % of its own capacity."""
    requests = requests_of(run)
    capacity = json.loads(RESULTS.read_text(encoding="utf-8"))["closed"]
    rates = {arm: 0.8 * capacity[arm]["16"]["requests_per_second"] for arm in ("naive", "ours")}
    found: dict[str, Any] = {}
    for arm, tried in (("naive", ("naive", "ours")), ("ours", ("naive", "ours"))):
        with server(arm, [run]) as (port, _):
            asyncio.run(load.closed(port, requests, 4, 2))
            found[arm] = {
                f"{rates[rate]:.0f}/s": asyncio.run(load.opened(port, requests, rates[rate], 15)).summary()
                for rate in tried
            }
    return found


def overload(run: str) -> dict[str, Any]:
    requests = requests_of(run)
    with server("ours", [run]) as (port, process):
        capacity = asyncio.run(load.closed(port, requests, 64, 8)).summary()["requests_per_second"]
        before = memory(process)
        peak = 0

        async def watched() -> load.Outcome:
            nonlocal peak
            task = asyncio.ensure_future(load.opened(port, requests, 10 * capacity, 60, connections=1024))
            while not task.done():
                peak = max(peak, memory(process))
                await asyncio.sleep(0.5)
            return task.result()

        outcome = asyncio.run(watched())
        recovered = time.perf_counter()
        while asyncio.run(load.closed(port, requests, 1, 0.1)).summary()["statuses"].keys() != {"200"}:
            pass
        return {
            "capacity": capacity,
            "offered_per_second": 10 * capacity,
            **outcome.summary(),
            "seconds": outcome.seconds,
            "memory_before": before,
            "memory_peak": peak,
            "recovered_after_seconds": time.perf_counter() - recovered,
        }


def shared(run: str) -> dict[str, Any]:
    """Resident memory after answering for every adapter: 8 copies of the run against one."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        copies = [str(shutil.copytree(run, Path(folder) / f"copy-{number}")) for number in range(8)]
        for count in (1, 8):
            with server("ours", copies[:count]) as (port, process):
                for number in range(count):
                    asyncio.run(load.closed(port, requests_of(run, f"copy-{number}"), 4, 1))
                found[f"resident_bytes_{count}"] = memory(process)
    found["ratio"] = found["resident_bytes_8"] / found["resident_bytes_1"]
    return found


PARTS = {"closed": closed, "open": opened, "overload": overload, "memory": shared}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given")
    arguments = parser.parse_args()
    from featherweight.engine import hardware
    from featherweight.runs.directory import package_versions

    for part in arguments.parts or PARTS:
        found = PARTS[part](arguments.run) | {"date": datetime.now(UTC).date().isoformat()}
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        known |= {part: found, "machine": hardware.describe(), "versions": package_versions()}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({part: found}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
