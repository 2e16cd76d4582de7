"""What reliability costs: ``python benchmarks/overhead.py`` runs the demo on a tenth of its rows and times the parts.

Each part's own seconds are summed inside one run and divided by the seconds of its training, which no drift of the
machine can blur as it would two runs. The whole demo has five times the steps and as many saves, so its share is
smaller. Results go to ``benchmarks/overhead.json``; ``make docs`` puts them into ``docs/reliability.md``.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")


def main() -> None:
    from featherweight import recipe as recipes
    from featherweight import storage, workflow
    from featherweight.engine import hardware
    from featherweight.engine.checkpoints import Checkpoints
    from featherweight.engine.guards import Guard
    from featherweight.runs import RunDirectory
    from featherweight.signals import Stop
    from featherweight.workflow import gate

    spent: dict[str, float] = {}

    def timed(owner: Any, name: str, part: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                spent[part] = spent.get(part, 0.0) + time.perf_counter() - started

        setattr(owner, name, wrapped)

    timed(Guard, "admits", "guard")
    timed(RunDirectory, "append_history", "history")
    timed(Stop, "__call__", "signals")
    timed(storage, "_lock", "lock")
    timed(Checkpoints, "require_room", "disk")
    for name in ("fingerprints", "require_effect", "require_other_answers", "require_same_answers"):
        timed(gate, name, "gate")
    recipe = recipes.load(ROOT / "recipes" / "demo.toml", {"data": {"max_train_samples": 1600}})
    with tempfile.TemporaryDirectory() as folder:
        metrics = workflow.run(recipe, Path(folder) / "run").metrics
    checkpoints, train = metrics["reliability"]["checkpoints"], metrics["resources"]["train_runtime"]
    spent["checkpoints"] = checkpoints["seconds"]
    machine = hardware.describe()
    result = {
        "command": "python benchmarks/overhead.py",
        "share": sum(spent.values()) / train,
        "shares": {name: seconds / train for name, seconds in sorted(spent.items(), key=lambda one: -one[1])},
        "train_seconds": train,
        "steps": round(metrics["resources"]["train_steps_per_second"] * train),
        "saves": checkpoints["saves"],
        "seconds_a_save": checkpoints["seconds"] / checkpoints["saves"],
        "checkpoint_bytes": checkpoints["bytes"],
        "cores": machine["cores"],
        "processor": machine["processor"],
    }
    (ROOT / "benchmarks" / "overhead.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
