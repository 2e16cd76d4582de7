"""Kill whole runs at random moments, resume them, and compare what comes out to the byte: ``make torture``.

Each kill is one run of its own: half the kills come at a random time, half at a random change of a file in the run's
folder (before it, or in the middle of a write). The run is then resumed, by the command and nothing else, and its
adapter, predictions and figures must be those of the run that nobody killed. What happened goes to a file, a line a
kill; the last line printed is the sum of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import injector
import tiny

ALWAYS = {
    "data.max_length": 16, "data.validation_fraction": 0.25, "method.name": "lora",
    "method.lora_dropout": 0.2, "method.r": 4,
    "training.num_train_epochs": 2, "training.per_device_train_batch_size": 3, "training.logging_steps": 1,
    "training.gradient_accumulation_steps": 2, "training.warmup_ratio": 0.5, "training.learning_rate": 1e-2,
    "training.save_strategy": "steps", "training.save_steps": 2,
}  # fmt: skip
# Every path that a step can take: packed and padded batches, the trunk's cache, batches of like length.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "packed": ("bert", {}),
    "padded": ("gpt_neo", {}),
    "trunk-cache": ("bert", {"training.trunk_cache": "fp32", "method.layers_to_transform": [1]}),
    "by-length": ("gpt2", {"training.train_sampling_strategy": "group_by_length"}),
}


@dataclass(frozen=True)
class Reference:
    """The run that nobody disturbs: what it left, its changes of files, and how long it took."""

    outcome: dict[str, Any]
    calls: int
    seconds: float


class Torture:
    """One injector and its runs.

    Args:
        folder: everything happens below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["FEATHERWEIGHT_CACHE"] = str(folder / "cache")
        self.data = tiny.save_csv(folder / "train.csv", tiny.rows(60))
        self.models = {kind: tiny.save_model(folder / kind, kind, dropout=0.1) for kind, _ in CASES.values()}
        self.injector = injector.Injector(folder, injector.build(folder))
        self._references: dict[str, Reference] = {}

    def arguments(self, case: str, out: Path, **more: Any) -> list[str]:
        kind, settings = CASES[case]
        sets = {**ALWAYS, **settings, **{key.replace("__", "."): value for key, value in more.items()}}
        given = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
        return ["run", "--model", str(self.models[kind]), "--data", str(self.data), "--output-dir", str(out), *given]

    def reference(self, case: str) -> Reference:
        if case not in self._references:
            out = self.folder / f"reference-{case}"
            for _ in range(2):  # the second one finds the caches that the others find
                shutil.rmtree(out, ignore_errors=True)
                ended = self.injector.run(self.arguments(case, out), below=out)
                assert ended.code == 0, ended.errors
            self._references[case] = Reference(outcome(out), ended.calls, ended.seconds)
        return self._references[case]

    def kill(self, index: int, seed: int) -> dict[str, Any]:
        """Kill one run at a moment drawn by ``seed`` and ``index``, resume it, and say what came of it."""
        draw = random.Random(f"{seed} {index}")
        case = list(CASES)[index % len(CASES)]
        whole = self.reference(case)
        out = self.folder / f"run-{index}"
        while True:
            shutil.rmtree(out, ignore_errors=True)
            if index // len(CASES) % 2:
                moment: dict[str, Any] = {"seconds": draw.uniform(0, whole.seconds)}
                ended = self.injector.run(self.arguments(case, out), signals=[(moment["seconds"], injector.KILL)])
            else:
                moment = {"change": draw.randint(1, whole.calls), "action": draw.choice(["kill", "tear"])}
                ended = self.injector.run(
                    self.arguments(case, out), below=out, at=moment["change"], action=moment["action"]
                )
            if ended.code == -injector.KILL:
                break  # else it had ended by then; once more
        in_a_save = any((out / "checkpoints").glob(".*"))
        resumed = self.injector.run([*self.arguments(case, out), "--resume"])
        same = resumed.code == 0 and outcome(out) == whole.outcome
        left = [str(path.relative_to(out)) for path in out.rglob(".*")]
        record = {"index": index, "case": case, **moment, "in_a_save": in_a_save, "code": resumed.code, "same": same}
        if not same or left:
            record |= {"errors": resumed.errors[-2000:], "left": left}
        else:
            shutil.rmtree(out)
        return record

    def close(self) -> None:
        self.injector.close()


def outcome(run: Path) -> dict[str, Any]:
    """All of a run that its settings decide: the adapter's and the predictions' bytes, and the figures."""
    files = [*(run / "adapter").iterdir(), *(run / "predictions").iterdir()]
    return {
        **{f"{path.parent.name}/{path.name}": path.read_bytes() for path in files},
        "metrics.json": json.dumps(_without_times(json.loads((run / "metrics.json").read_text(encoding="utf-8")))),
    }


def _without_times(value: Any) -> Any:
    """What stays the same from one run to the next."""
    if isinstance(value, dict):
        timed = ("runtime", "per_second", "seconds", "resources", "reliability", "cost", "energy")
        return {key: _without_times(one) for key, one in value.items() if not key.endswith(timed)}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kills": len(records),
        "resumed_to_the_same_bytes": sum(one["same"] for one in records),
        "lost": sum(not one["same"] for one in records),
        "leftovers": sum("left" in one and bool(one["left"]) for one in records),
        "kills_inside_a_save": sum(one["in_a_save"] for one in records),
        "at_a_random_time": sum("seconds" in one for one in records),
        "at_a_random_change_of_a_file": sum("change" in one for one in records),
        "cases": {case: sum(one["case"] == case for one in records) for case in CASES},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill; each has its own moment")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path("torture.jsonl"), help="gets a line for each kill")
    parser.add_argument("--summary", type=Path, help="gets the sum of all lines in the report, as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        torture = Torture(Path(folder))
        for index in range(arguments.first, arguments.first + arguments.kills):
            record = torture.kill(index, arguments.seed)
            with arguments.report.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
            if not record["same"]:
                print(f"kill {index}: {record}", file=sys.stderr, flush=True)  # noqa: T201
        torture.close()
    records = [json.loads(line) for line in arguments.report.read_text(encoding="utf-8").splitlines()]
    found = summary(records)
    print(json.dumps(found))  # noqa: T201
    if arguments.summary:
        arguments.summary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(found["lost"] > 0 or found["leftovers"] > 0)


if __name__ == "__main__":
    sys.exit(main())
