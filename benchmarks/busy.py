"""How threads should wait on idle and on busy machines: ``python benchmarks/busy.py RUN [--rounds N] [--parts ...]``.

RUN is a finished run, such as ``runs/demo``. Every policy of ``featherweight/waiting.py`` evaluates its validation
rows, predicts them one by one and serves them to four clients, alone and beside one process that never rests.
Policies take turns, so that a drift of the machine is none of theirs, and each measurement is a process of its own.
Results, texts a second by round, go to ``benchmarks/busy.json``; the table shows medians.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import load
import serve

from featherweight.process.waiting import POLICIES

RESULTS = Path(__file__).parent / "busy.json"
_ALONE = 200  # texts that are asked one by one

_EVALUATE = (
    "import sys; from featherweight import workflow; print(workflow.evaluate(sys.argv[1])['eval_samples_per_second'])"
)
_PREDICT = f"""
import sys, time
from featherweight import load_predictor
sys.path.insert(0, {str(Path(__file__).parent)!r})
import serve
texts = serve.texts_of(sys.argv[1])[:{_ALONE}]
predictor = load_predictor(sys.argv[1])
predictor.predict(texts[:20])
started = time.perf_counter()
for text in texts:
    predictor.predict(text)
print(len(texts) / (time.perf_counter() - started))
"""


def _in_a_process(code: str, run: str) -> float:
    done = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def evaluate(run: str) -> float:
    return _in_a_process(_EVALUATE, run)


def predict(run: str) -> float:
    return _in_a_process(_PREDICT, run)


def server(run: str) -> float:
    requests = serve.requests_of(run)
    with serve.server("ours", [run]) as (port, _):
        asyncio.run(load.closed(port, requests, 4, 2))  # warm-up
        return float(asyncio.run(load.closed(port, requests, 4, 5)).summary()["requests_per_second"])


PARTS = {"evaluate": evaluate, "predict": predict, "server": server}


@contextlib.contextmanager
def beside(processes: int) -> Iterator[None]:
    """So many processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


@contextlib.contextmanager
def waiting(policy: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(POLICIES[policy])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for turn in range(arguments.rounds):
        for others in (0, 1):
            for part in arguments.parts:
                policies = list(POLICIES) if turn % 2 == 0 else list(POLICIES)[::-1]
                for policy in policies:
                    with beside(others), waiting(policy):
                        speed = PARTS[part](arguments.run)
                    name = "busy" if others else "idle"
                    found.setdefault(part, {}).setdefault(name, {}).setdefault(policy, []).append(speed)
                    print(f"round {turn + 1}: {part}, {name}, {policy}: {speed:.1f}/s", flush=True)
        RESULTS.write_text(json.dumps({"cores": os.cpu_count(), "speeds": found}, indent=1) + "\n", encoding="utf-8")
    for part, states in found.items():
        for state, speeds in states.items():
            print(part, state, {policy: round(median(values), 1) for policy, values in speeds.items()})


if __name__ == "__main__":
    main()
