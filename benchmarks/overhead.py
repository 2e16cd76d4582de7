"""What reliability costs: ``python benchmarks/overhead.py`` makes the demo's first steps and times the parts.

Each part's own seconds are taken inside one run, which no drift of the machine can blur as it would two runs. What
happens at every step is scaled to the demo's steps, what happens at every save to its saves, the rest counts once; the
whole is divided by the seconds of that many steps, evaluations not counted. Results go to
``benchmarks/overhead.json``; ``make docs`` puts them into ``docs/reliability.md``.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

MEASURED_STEPS = 40
EVERY_STEP = ("guard", "history", "signals")
ROOT = Path(__file__).parent.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")


def main() -> None:
    from featherweight import recipe as recipes
    from featherweight import workflow
    from featherweight.engine import hardware
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.engine.training.guard import Guard
    from featherweight.engine.training.train import Trainer
    from featherweight.process.signals import Stop
    from featherweight.runs.directory import RunDirectory
    from featherweight.storage import whole
    from featherweight.workflow import gate

    spent: dict[str, list[float]] = {}

    def timed(owner: Any, name: str, part: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                spent.setdefault(part, []).append(time.perf_counter() - started)

        setattr(owner, name, wrapped)

    timed(Trainer, "_train_step", "steps")
    timed(Guard, "admits", "guard")
    timed(RunDirectory, "append_history", "history")
    timed(Stop, "__call__", "signals")
    timed(whole, "_lock", "lock")
    timed(Checkpoints, "require_room", "disk")
    for name in ("fingerprints", "require_effect", "require_other_answers", "require_same_answers"):
        timed(gate, name, "gate")
    demo = ROOT / "recipes" / "demo.toml"
    recipe = recipes.load(demo, {"training": {"max_steps": MEASURED_STEPS}, "data": {"max_eval_samples": 256}})
    with tempfile.TemporaryDirectory() as folder:
        metrics = workflow.run(recipe, Path(folder) / "run").metrics
        training = recipes.load(Path(folder) / "run" / "recipe.toml").training
    checkpoints = metrics["reliability"]["checkpoints"]
    a_save = checkpoints["seconds"] / checkpoints["saves"]
    epochs = round(training.num_train_epochs)
    steps = epochs * -(-metrics["rows"]["train"] // training.per_device_train_batch_size)
    train = steps * median(spent.pop("steps"))
    seconds = {part: sum(each) * (steps / MEASURED_STEPS if part in EVERY_STEP else 1) for part, each in spent.items()}
    seconds["checkpoints"] = epochs * a_save
    machine = hardware.describe()
    result = {
        "command": "python benchmarks/overhead.py",
        "share": sum(seconds.values()) / train,
        "shares": {name: one / train for name, one in sorted(seconds.items(), key=lambda pair: -pair[1])},
        "train_seconds": train,
        "steps": steps,
        "measured_steps": MEASURED_STEPS,
        "saves": epochs,
        "seconds_a_save": a_save,
        "checkpoint_bytes": checkpoints["bytes"],
        "cores": machine["cores"],
        "processor": machine["processor"],
    }
    (ROOT / "benchmarks" / "overhead.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
