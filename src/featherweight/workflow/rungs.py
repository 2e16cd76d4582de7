"""The rungs of the ladder: each cheap rival and each state of the model, on every split that is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, figures, headline, interval
from featherweight.errors import Interrupted
from featherweight.evidence.baselines import Baseline, Part, applies, scatter
from featherweight.process.signals import Stop
from featherweight.records.answers import Answers, Evaluation
from featherweight.records.cutting import Cutting
from featherweight.records.outcome import BaselineFigures, Cost
from featherweight.records.questions import Tokens
from featherweight.records.rows import Column, Encoding, Examples
from featherweight.registry import BASELINES
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.runs.predictions import Predictions
from featherweight.workflow import prompting
from featherweight.workflow.preparing import Prepared, measure

if TYPE_CHECKING:
    from featherweight.engine import Watch

_LONGEST_REASON = 300  # characters


def measure_baselines(
    prepared: Prepared, directory: RunDirectory, console: Console, stop: Stop
) -> tuple[dict[str, BaselineFigures], dict[str, str]]:
    """Fit each baseline on train, let it answer, and keep its answers.

    One that fails, whatever with, is said and left out: the run is about the model.

    Returns:
        Baseline to its metrics on the evaluated split, with the ``cost`` of fitting it and answering; and those left
        out to the reason.
    """
    splits = dict.fromkeys(["train", *prepared.measured_splits])
    parts = {split: frozen_part(prepared, split, console, stop) for split in splits}
    kind = prepared.task.answer
    found: dict[str, BaselineFigures] = {}
    left_out: dict[str, str] = {}
    for name in _chosen(prepared):
        console.begin(f"measuring the baseline {name}")
        try:
            baseline = BASELINES[name]()
            answers, cost = _answers(prepared, baseline, parts)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a library raises, MemoryError among it
            left_out[name] = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
            console.say(f"the baseline {name} failed and is left out: {left_out[name]}")
            continue
        for split, one in answers.items():
            _keep(prepared, directory, name, split, one)
        asked = kind, answers[prepared.evaluated_split], prepared.examples[prepared.evaluated_split].truth
        measured = {**figures(*asked), **interval(*asked), "runtime": cost["seconds"], "cost": cost}
        if over_draws := scatter(baseline, headline(kind), asked[2]):
            measured["scatter"] = over_draws
        found[name] = cast(BaselineFigures, measured)
    return found, left_out


def _chosen(prepared: Prepared) -> list[str]:
    """The baselines that the recipe names; else those of the kind of answer that are rivals on these data."""
    kind, train = prepared.task.answer, prepared.examples["train"]
    if prepared.recipe.evidence.baselines is not None:
        return prepared.recipe.evidence.baselines
    return [name for name in BASELINES.for_kind(kind.baselines, kind.name) if applies(name, train, kind)]


def _answers(prepared: Prepared, baseline: Baseline, parts: Mapping[str, Part]) -> tuple[dict[str, Answers], Cost]:
    """A baseline's answers to each measured split, and what fitting and answering took."""
    from featherweight.engine.cost import Meter

    with Meter() as meter:
        baseline.fit(parts["train"], prepared.task.answer)
        answers = {split: baseline.predict(parts[split]) for split in prepared.measured_splits}
    return answers, meter.cost()


def measure_model(
    prepared: Prepared, directory: RunDirectory, model: Any, name: str, console: Console, stop: Stop
) -> dict[str, Evaluation]:
    """Run the model over every measured split and keep its answers as those of ``name``."""
    found = {}
    for split in prepared.measured_splits:
        found[split] = measure_together(prepared, model, f"evaluating the {name} model", console, stop, split)
        _keep(prepared, directory, name, split, found[split].answers)
    return found


def measure_together(prepared: Prepared, model: Any, what: str, console: Console, stop: Stop, split: str) -> Evaluation:
    """Run the model over a split, which the other processes of the run are asked to take part in."""
    prepared.execution.fleet.announce("measure", split=split)
    return measure(prepared, model, what, console, stop, split)


def frozen_part(prepared: Prepared, split: str, console: Console, stop: Stop) -> Part:
    """A split whose frozen features and embeddings are there for the asking. The model must not be adapted yet."""

    def compute(rows: NDArray[np.int64]) -> Column:
        return frozen_features(prepared, prepared.head, split, rows, console, stop)

    def embed(examples: Examples) -> NDArray[np.float32]:
        return frozen_embeddings(prepared, examples, console, stop)

    def with_examples() -> Answers:
        from featherweight.engine import Watch

        rows = prompting.rows_with_examples(prepared, prepared.examples[split])
        watch = Watch(f"evaluating few-shot prompts of {split}", console.observe, stop)
        return tokens_answered(prepared, prepared.model, prepared.task.answer, rows, watch)

    examples, targets = prepared.examples[split], prepared.encodings[split].targets
    return Part(examples, compute, embed, targets, with_examples if prompting.can_show(prepared) else None)


def tokens_answered(prepared: Prepared, model: Any, kind: Answer, rows: Sequence[Tokens], watch: Watch) -> Answers:
    """The model's answers of some kind to rows that are in memory, in their order."""
    from featherweight.engine.running.evaluate import answers

    told = [(one.ids, one.reads, one.kinds, one.lost, one.ends, one.reply) for one in rows]
    prepared.execution.fleet.announce("answer", kind=kind.name, facts=kind.facts(), rows=told)
    encoding, places = Encoding.asked(rows), np.arange(len(rows))
    return answers(model, kind, encoding, places, execution=prepared.execution, watch=watch)


def frozen_features(
    prepared: Prepared, modules: Sequence[str], split: str, rows: NDArray[np.int64], console: Console, stop: Stop
) -> Column:
    """What these modules of the untuned model's head read of some rows of a split, or of train with its suspects; those
    of train are kept, as the head may begin on what the ladder's probe was fitted on."""
    from featherweight.engine import Watch
    from featherweight.engine.running.features import features

    asked = (tuple(modules), rows.tobytes())
    if split == "train" and prepared.kept_features is not None and prepared.kept_features[0] == asked:
        return prepared.kept_features[1]
    prepared.execution.fleet.announce("features", modules=[*modules], split=split, rows=rows.tolist())
    found = features(
        prepared.model,
        modules,
        prepared.encoding_of(split),
        rows,
        execution=prepared.execution,
        watch=Watch(f"reading the frozen features of {split}", console.observe, stop),
    )
    if split == "train":
        prepared.kept_features = (asked, found)
    return found


def frozen_embeddings(prepared: Prepared, examples: Examples, console: Console, stop: Stop) -> NDArray[np.float32]:
    """Of rows that need not be those of a split, cut where a split's are."""
    from featherweight.engine import Watch
    from featherweight.engine.running.embeddings import embeddings

    return embeddings(
        prepared.model,
        prepared.task.encode(examples, prepared.tokenizer, Cutting(prepared.cutting.max_length)),
        execution=prepared.execution,
        watch=Watch(f"embedding the texts of {examples.name}", console.observe, stop),
    )


def keep(
    prepared: Prepared, directory: RunDirectory, name: str, examples: Examples, answers: Answers, truth: Any
) -> None:
    """Put the answers of ``name`` to rows of a split into the run's folder, beside what is true."""
    kept = Predictions(examples.ids, prepared.task.answer, answers, truth, prepared.groups_of(examples))
    directory.write_predictions(name, examples.name, kept)


def _keep(prepared: Prepared, directory: RunDirectory, name: str, split: str, answers: Answers) -> None:
    examples = prepared.examples[split]
    keep(prepared, directory, name, examples, answers, examples.truth)
