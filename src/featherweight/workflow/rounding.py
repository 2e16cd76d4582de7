"""What ``training.bf16 = "auto"`` comes to: training rounds to bf16 where this processor gains by it and the model
answers the run's own validation rows as well, by the proof that an export in int8 has to stand. What is measured for
the report, before and after, is in fp32 either way."""

from __future__ import annotations

from typing import Any

from featherweight.errors import DivergedError
from featherweight.process.signals import Stop
from featherweight.records.answers import Answers
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.workflow.preparing import SELECTION_SPLIT, Prepared
from featherweight.workflow.rungs import measure_together

EVENT = "precision"


def settle(prepared: Prepared, model: Any, directory: RunDirectory, console: Console, stop: Stop) -> None:
    """Begin to round, or leave it. A resumed run does what it began with, so that it ends with the same bytes.

    Args:
        model: in the state that its training begins from.
    """
    if prepared.recipe.training.bf16 != "auto":
        return
    events = [event for event in directory.read_history() if event["event"] == EVENT]
    event = events[0] if events else {"event": EVENT, **_found(prepared, model, console, stop)}
    if not events:
        directory.append_history(event)
    prepared.rounds = event["bf16"]
    prepared.reasons["training.bf16"] = f"chosen automatically: {event['reason']}"
    multiply_in(prepared, "bf16" if prepared.rounds else "fp32")
    if prepared.rounds:
        directory.note({"precision": "bf16 in training, fp32 in what is measured before and after it"})
    console.say(f"training.bf16: {str(prepared.rounds).lower()}; {event['reason']}")


def end(prepared: Prepared) -> None:
    """What the report says of the tuned model is measured as it is of the untuned one, and as it is published."""
    if prepared.recipe.training.bf16 == "auto":
        multiply_in(prepared, "fp32")


def multiply_in(prepared: Prepared, precision: str) -> None:
    """From now on, in all processes of the run."""
    prepared.execution.fleet.announce("multiply", precision=precision)
    prepared.execution.multiply_in(precision)


def _found(prepared: Prepared, model: Any, console: Console, stop: Stop) -> dict[str, Any]:
    from featherweight.engine.fast.machine_speed import probe
    from featherweight.engine.hardware import has_bf16

    if prepared.accelerator.device.type != "cpu":
        return {"bf16": False, "reason": "'auto' is for processors; on this device say true or false"}
    if not has_bf16():
        return {"bf16": False, "reason": "this processor has no bf16 instructions"}
    speed = probe()
    measured = f"{speed.fp32 / 1e9:.0f} GFLOP/s in fp32, {speed.bf16 / 1e9:.0f} in bf16"
    if not speed.gains_by_bf16:
        return {"bf16": False, "reason": f"no faster here: {measured}"}
    with stop.at_once("comparing bf16 with fp32"):
        no_worse, compared = _compared(prepared, model, console, stop)
    return {"bf16": no_worse, "reason": f"{measured}; {compared}"}


def _compared(prepared: Prepared, model: Any, console: Console, stop: Stop) -> tuple[bool, str]:
    """Whether the answers in bf16 are no worse than those in fp32, and how they compare."""
    from featherweight.evidence import equivalence

    def answered(precision: str) -> Answers:
        multiply_in(prepared, precision)
        return measure_together(prepared, model, f"answering in {precision}", console, stop, SELECTION_SPLIT).answers

    exact = answered("fp32")
    try:
        pair = exact, answered("bf16")
    except DivergedError:
        return False, "some answers in bf16 are not numbers"
    kind, examples = prepared.task.answer, prepared.examples[SELECTION_SPLIT]
    likeness = kind.likeness(*pair)
    evidence = equivalence.measure(kind, *pair, examples.truth, likeness, prepared.groups_of(examples))
    evidence |= {"margin": equivalence.MARGIN, "min_agreement": equivalence.AGREEMENT}
    no_worse = equivalence.is_no_worse(evidence, likeness)
    verdict = "no worse" if no_worse else "not shown to be no worse"
    return no_worse, f"{verdict}: {equivalence.in_words(evidence, likeness)}"
