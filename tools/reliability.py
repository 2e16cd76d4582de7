"""The table of promises in ``docs/reliability.md``: each numbered row, the tests that hold it, and how they ended.

``python tools/reliability.py JUNIT.xml ...`` takes results over into ``docs/reliability.json``; ``make reliability``
runs the tests and does that; ``make docs`` writes the table from the names in ``tests`` and these results.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "reliability.json"
TORTURE = ROOT / "benchmarks" / "torture.json"
OVERHEAD = ROOT / "benchmarks" / "overhead.json"
PROMISES = {
    1: "SIGKILL anywhere inside a save: resume gives the uninterrupted run's bytes",
    2: "SIGKILL between steps, mid-epoch, with dropout, shuffling, accumulation, warm-up: the same bytes",
    3: "SIGKILL at an epoch's end or after the last step: no step twice, none left out",
    4: "negative control: without restored random states the comparison fails",
    5: "SIGTERM at any stage: exit 75 and the command that resumes",
    6: "SIGINT is the same; a second signal stops at once and corrupts nothing",
    7: "full disk or quota: exit 6 with bytes needed and free; the checkpoints before stay; resume works",
    8: "too little room is refused before the first step, unless --force",
    9: "quota, read-only, no permission: exit 6 before the first step",
    10: "empty and truncated files: skipped with a warning, the checkpoint before is used",
    11: "a flipped bit: skipped, or exit 4 where that checkpoint was named",
    12: "all damaged: exit 4; none yet: starts, and says so",
    13: "changed settings, model, data: exit 2 with each difference",
    14: "a moved run resumes: no absolute path in its state",
    15: "one process a run; the lock of a dead owner is no lock",
    16: "retention keeps the best and the only whole checkpoint, through a crash as well",
    17: "a pickle in a checkpoint is not opened: exit 4",
    18: "the step chooses, not the files' dates",
    19: "TMPDIR on another file system changes nothing",
    20: "another number of threads or other versions: stated in the log and the report",
    21: "divergence: exit 5 within a few steps, last finite checkpoint kept, nothing published",
    22: "a poisoned batch is left out and counted; too many end the run",
    23: "NaN, no effect, or other answers after reading back: exit 5, nothing published",
    24: "no token of any text left: exit 3",
    25: "a head of NaN or zeros is drawn afresh, and that is said",
    26: "a precision that the machine lacks: exit 2",
    27: "out of memory: smaller micro-batches, the same step, recorded; else exit 6",
    29: "a model without pad token: batches of one, left and right padding agree",
    47: "data that changed on disk: seen on resume, exit 2",
    71: "one column, one reading: labels are read as names or as positions, never as both",
    72: "rows of one group never stand on both sides of a split; files that share groups are treated as twins are",
    73: "what a reader yields, every writer writes without loss, or refuses before the first row",
    74: "evaluate and export say where the run's data has changed, and claim nothing of it then",
    75: "a base model is shared only where its weights are equal; @base is the untuned model",
    76: "answers that depend on their batch are found when a model is loaded, and prevented or said",
    77: "what is no text or no label is refused in every command, with the row and the task that would take it",
    78: "quoted TSV, dev files and unlabelled test files are read as people mean them",
    79: "16-bit training keeps the guard and the scaler, and ends as diverged where it diverges",
    80: "an exception that nobody foresaw is one line, an exit code, and nothing half-made",
    81: "the length that a model can hold is tried, not believed",
    82: "encoder-decoders that need an end of text are run, predicted, exported and served",
    83: "a fresh adapter is saved and read back before the first step",
    84: "an architecture works or is refused in one line before the work",
    85: "why a model is not packed is said in words that a user reads",
    86: "what others may write is never trusted: caches, links, predictable names",
    87: "a server, an archive and a pattern are bounded before they are believed",
    88: "many classes: baselines, tables and files stay bounded and readable",
    89: "many rows and long texts: time and memory stay bounded",
    90: "a busy machine slows nothing twice, and no measurement of it sticks",
    91: "the headline says what was shown: better, worse, or not told apart and how many rows would tell",
    92: "labels never answered, training that still improved, few steps, unbalanced sets: said",
    93: "no table breaks a word or a number at 80 columns",
    94: "progress has a time left, and moves, in a terminal and in Python",
    95: "flags and --set mean what they say without a recipe; names and columns are found",
    96: "known keys of TrainingArguments that are not ours are named as such; no misleading guesses",
    97: "words match figures in reports, cards and first steps",
    98: "files as people have them are read, or refused with a step that works",
    99: "training goes on from an adapter; more epochs of a finished run say how",
    100: "a broken compiler is a reason; extras are pinned; a rare label never answered is not 'better'",
}


def tests() -> dict[int, list[tuple[str, str]]]:
    """Row to (file, test), from the names of the tests."""
    found: dict[int, list[tuple[str, str]]] = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (
                match := re.match(r"test_rows?_(\d+)(?:_and_(\d+))?_", node.name)
            ):
                for row in filter(None, match.groups()):
                    found.setdefault(int(row), []).append((path.name, node.name))
    return dict(sorted(found.items()))


def table() -> str:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = ["| row | promise | tests | result |", "|---|---|---|---|"]
    for row, named in tests().items():
        outcomes = [one for _, test in named for one in results.get(test, {"not recorded": 1}).items()]
        total: dict[str, int] = {}
        for outcome, count in outcomes:
            total[outcome] = total.get(outcome, 0) + count
        shown = ", ".join(
            f"{count} {outcome}" if outcome != "not recorded" else outcome for outcome, count in total.items()
        )
        where = "<br>".join(f"`{file}` `{test}`" for file, test in named)
        lines.append(f"| {row} | {PROMISES.get(row) or _words(named[0][1])} | {where} | {shown} |")
    return "\n".join(lines) + "\n"


def figures() -> str:
    """What ``make torture`` found, and the overhead benchmark where it was run."""
    killed = json.loads(TORTURE.read_text(encoding="utf-8"))
    text = (
        f"`make torture`: {killed['kills']} runs killed by SIGKILL, {killed['at_a_random_time']} at a random time and "
        f"{killed['at_a_random_change_of_a_file']} at a random change of a file, {killed['kills_inside_a_save']} of "
        f"them inside a save; {killed['resumed_to_the_same_bytes']} resumed to the same bytes, {killed['lost']} lost, "
        f"{killed['leftovers']} left anything behind.\n"
    )
    return text + (_overhead(json.loads(OVERHEAD.read_text(encoding="utf-8"))) if OVERHEAD.is_file() else "")


def _overhead(cost: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {share:.3%}" for name, share in cost["shares"].items())
    return (
        f"\n`{cost['command']}`: all of it takes **{cost['share']:.2%}** of the demo's training time ({parts}): "
        f"{cost['steps']} steps in {cost['train_seconds']:.0f} s, from {cost['measured_steps']} measured ones, with "
        f"{cost['saves']} saves of {cost['checkpoint_bytes'] / 1e6:.1f} MB, {cost['seconds_a_save']:.3f} s each, on "
        f"{cost['cores']} cores of {cost['processor']}.\n"
    )


def record(reports: list[Path]) -> None:
    """Test to how many of its cases passed, were skipped or failed."""
    results: dict[str, dict[str, int]] = {}
    for report in reports:
        for case in ET.parse(report).iter("testcase"):
            name = str(case.get("name")).partition("[")[0]
            if not name.startswith(("test_row_", "test_rows_")):
                continue
            kinds = {"failure": "failed", "error": "failed", "skipped": "skipped"}
            outcome = next((kinds[child.tag] for child in case if child.tag in kinds), "passed")
            counts = results.setdefault(name, {})
            counts[outcome] = counts.get(outcome, 0) + 1
    known: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    merged = dict(sorted((known | results).items()))
    RESULTS.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def _words(test: str) -> str:
    return re.sub(r"^test_rows?_\d+_", "", test).replace("_", " ")


if __name__ == "__main__":
    record([Path(name) for name in sys.argv[1:]])
