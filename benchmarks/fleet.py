"""One process against several on the same cores, and the parts of a step: ``python benchmarks/fleet.py``.

``speed`` tunes MiniLM-L6 by the demo's recipe, in one process with all threads and in as many processes of one thread,
with the same rows in a step; the arms alternate, and the figure is the median of the ratios of neighbours. ``parts``
measures what a step's sum takes by its size, in 2 and in 4 processes, fits latency and bandwidth, and holds
seconds = compute / cores + latency + bytes / bandwidth to the steps of real runs. ``shards`` tunes SmolLM2-135M by
demo-decoder's recipe in two processes, each with all of the base and each with its part of it. ``kills`` kills one of
two processes, at random, at a random step of a tiny run, and lets it go on, twenty times. Results go to
``benchmarks/fleet.json``; docs/scaling.md says what follows from them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_suffix(".json")
ROWS, STEPS, EVERY = 32, 40, 5
SHARD_STEPS = 15
SIZES = [10**3, 10**4, 10**5, 10**6, 4 * 10**6]  # numbers of 4 bytes
FLEETS = (2, 4)
_TIMES, _WARM = 30, 5
KILLS = 20
STEP = "featherweight.engine.training.train:Trainer._train_step"


def cores() -> int:
    return len(os.sched_getaffinity(0))


def run(processes: int, threads: int, recipe: str = "demo", steps: int = STEPS, **more: Any) -> dict[str, Any]:
    """Tune for a few steps. Returns rows a second, of the median stretch of steps, the last one's loss, and the most
    memory that a process of several has for itself meanwhile, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sets = {
            "training.max_steps": steps, "training.logging_steps": EVERY, "data.max_eval_samples": 64,
            "training.per_device_train_batch_size": ROWS // processes, "evidence.baselines": ["majority"],
            "training.eval_strategy": "steps", "training.eval_steps": steps, **more,
        }  # fmt: skip
        given = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
        several = [f"--num-processes={processes}"] if processes > 1 else []
        command = ["run", str(ROOT / "recipes" / f"{recipe}.toml"), "--quiet", f"--output-dir={out}", *several, *given]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen([sys.executable, "-m", "featherweight", *command], env=environment) as started:
            most = _own_memory(started, out / "history.jsonl")
        assert started.returncode == 0
        history = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
        trained = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["trainable_parameters"]
    logged = [event for event in history if event["event"] == "step"][1:]  # the first stretch warms up
    return {
        "rows_per_second": median(one["samples_per_second"] for one in logged),
        "loss": logged[-1]["loss"],
        "trained": trained,
        "own_bytes": most,
    }


def _own_memory(started: subprocess.Popen[bytes], history: Path) -> int:
    """The most that a child of a process that runs has for itself while it trains, beside the files that it maps."""
    most = 0
    while started.poll() is None:
        time.sleep(0.5)  # so that what is measured does not notice
        try:
            said = history.read_text(encoding="utf-8")
            if '"event": "step"' not in said or '"event": "evaluation"' in said:
                continue
            children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
            states = [Path(f"/proc/{one}/status").read_text() for one in children]
        except OSError:  # it is over, or has not begun
            continue
        lines = [line for state in states for line in state.splitlines() if line.startswith("RssAnon")]
        most = max([most, *(1024 * int(line.split()[1]) for line in lines)])
    return most


def _kept(dtype: str) -> int:
    """Bytes of SmolLM2's frozen weights that one of two processes keeps."""
    import torch

    from featherweight.engine.fleet import Together
    from featherweight.engine.shards import Shards
    from featherweight.process.launch import Place
    from featherweight.recipe import load
    from featherweight.sources.models import find
    from featherweight.tasks import heads
    from featherweight.tasks.sequence_classification import SequenceClassification

    section = load(ROOT / "recipes" / "demo-decoder.toml").model.model_copy(update={"dtype": dtype})
    shares = Shards(Together(Place(0, 2)), torch.device("cpu"))
    heads.load(SequenceClassification(("NEGATIVE", "POSITIVE")).head(), find(section.name), section, shares)
    return shares.kept_bytes


def shards(rounds: int) -> dict[str, Any]:
    """The base whole in each of two processes, and shared out; fp32, and bf16."""
    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        arms: list[list[dict[str, Any]]] = [[], []]
        for number in range(rounds):
            for arm in (0, 1) if number % 2 == 0 else (1, 0):
                asked = {"model.dtype": dtype, "training.fsdp": bool(arm)}
                arms[arm].append(run(2, 1, "demo-decoder", SHARD_STEPS, **asked))
        rates, sizes = ([[one[key] for one in arm] for arm in arms] for key in ("rows_per_second", "own_bytes"))
        found[dtype] = {
            "ratios": [shared / whole for whole, shared in zip(*rates, strict=True)],
            "rows_per_second": rates,
            "own_bytes": [max(of_arm) for of_arm in sizes],
            "kept_bytes": _kept(dtype),
            "losses": [of_arm[0]["loss"] for of_arm in arms],
        }
    return {"dtypes": found}


def speed(rounds: int) -> dict[str, Any]:
    """The paired arms."""
    arms: list[tuple[int, int]] = [(1, cores()), (cores(), 1)]
    found: list[list[dict[str, Any]]] = [[], []]
    for number in range(rounds):
        for arm in (0, 1) if number % 2 == 0 else (1, 0):
            found[arm].append(run(*arms[arm]))
    rates = [[one["rows_per_second"] for one in of_arm] for of_arm in found]
    ratios = [several / one for one, several in zip(*rates, strict=True)]
    return {
        "processes": cores(),
        "rows_per_second_of_one": rates[0],
        "rows_per_second": rates[1],
        "ratios": ratios,
        "ratio": median(ratios),
        "losses": [of_arm[0]["loss"] for of_arm in found],
    }


def reduce() -> None:
    """In each of several processes: seconds of a step's sum, of each size; rank 0 prints them."""
    import torch

    from featherweight.engine.fleet import Said, join

    fleet = join()
    found = []
    for size in SIZES:
        value = torch.nn.Parameter(torch.zeros(size))
        times = []
        for _ in range(_WARM + _TIMES):
            value.grad = torch.ones(size)
            fleet.barrier()
            started = time.perf_counter()
            fleet.add_up([value], Said(0.0, 1, False, False))
            times.append(time.perf_counter() - started)
        found.append(median(times[_WARM:]))
    if fleet.rank == 0:
        print(json.dumps(found))


def parts() -> dict[str, Any]:
    """What a step takes in one process of one thread, what its sum takes, and what follows for several processes."""
    alone = run(1, 1)
    compute, size = ROWS / alone["rows_per_second"], 4 * alone["trained"]
    found: dict[str, Any] = {"seconds_of_one_thread": compute, "payload_bytes": size, "fleets": {}}
    for processes in FLEETS:
        seconds = _reduced(processes)
        slope, latency = _line([4 * one for one in SIZES], seconds)
        found["fleets"][processes] = {
            "sums": dict(zip(map(str, SIZES), seconds, strict=True)),
            "latency_seconds": latency,
            "bytes_per_second": 1 / slope,
            "expected_step_seconds": compute / min(processes, cores()) + latency + slope * size,
            "step_seconds": ROWS / run(processes, 1)["rows_per_second"],
        }
    return found


def _reduced(processes: int) -> list[float]:
    command = [str(Path(sys.executable).with_name("torchrun")), f"--nproc-per-node={processes}", __file__, "reduce"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    seconds: list[float] = json.loads(said.splitlines()[-1])
    return seconds


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept, each measurement weighing as its share and not as its seconds."""
    slope, latency = np.polyfit(sizes, seconds, 1, w=1 / np.asarray(seconds))
    return float(slope), float(max(latency, 0.0))


def kills(count: int) -> dict[str, Any]:
    """How many runs of two processes, one of which is killed, go on to the bytes of one that nobody kills."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny  # type: ignore[import-not-found]
    from injector import striking  # type: ignore[import-not-found]
    from ranks import Ranks  # type: ignore[import-not-found]
    from torture import outcome  # type: ignore[import-not-found]

    drawn = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = tiny.recipe(
            tiny.save_model(folder / "gpt2", "gpt2", dropout=0.1),
            tiny.save_csv(folder / "train.csv", tiny.rows(60)),
            training={"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2, "warmup_ratio": 0.5},
        )
        given = [
            f"--set={section}.{key}={json.dumps(value)}"
            for section in ("data", "method", "training")
            for key, value in content[section].items()
        ]

        def command(out: str) -> list[str]:
            return ["run", f"--model={folder / 'gpt2'}", f"--output-dir={folder / out}", "--quiet", *given]

        ranks = Ranks(folder, command("warm"))
        ranks.run(command("whole"))
        expected = outcome(folder / "whole")
        history = (folder / "whole" / "history.jsonl").read_text(encoding="utf-8").splitlines()
        steps = sum(json.loads(line)["event"] == "step" for line in history)
        found: list[dict[str, Any]] = []
        for number in range(count):
            out, victim, step = f"{number}", drawn.randrange(2), drawn.randint(1, steps)
            ended = ranks.run(command(out), {victim: striking(STEP, step, signal.SIGKILL)})
            again = ranks.run([*command(out), "--resume"])
            codes = {"killed": [one.code for one in ended], "resumed": [one.code for one in again]}
            assert -signal.SIGKILL in codes["killed"], codes
            same = codes["resumed"] == [0, 0] and outcome(folder / out) == expected
            found.append({"rank": victim, "step": step, **codes, "same": same})
            print(found[-1], file=sys.stderr)
        ranks.close()
    return {"kills": found, "same": sum(one["same"] for one in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["speed", "parts", "shards", "kills", "reduce"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.part == "reduce":
        reduce()
        return
    from featherweight.engine.hardware import describe

    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(arguments.rounds),
        "parts": parts,
        "shards": lambda: shards(arguments.rounds),
        "kills": lambda: kills(KILLS),
    }
    for name in [arguments.part] if arguments.part else measures:
        found[name] = measures[name]() | {"machine": describe(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
