"""The last stage of a run: the artefact with its card, the report, and last of all ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from featherweight.answers import travels
from featherweight.evidence import training_checks
from featherweight.evidence.assess import assess
from featherweight.evidence.exhibits import Case, Held, heeding
from featherweight.evidence.verdict import headline
from featherweight.records.answers import Evaluation
from featherweight.records.outcome import Gate, Outcome, TuningCost
from featherweight.records.training import TrainingResult
from featherweight.runs.directory import FACTS, RunDirectory
from featherweight.workflow import gate
from featherweight.workflow.beside import beside, swapped
from featherweight.workflow.collecting import measured
from featherweight.workflow.preparing import SELECTION_SPLIT, Prepared
from featherweight.workflow.reading import described
from featherweight.workflow.resuming import reliability
from featherweight.workflow.writing import written


@dataclass(frozen=True)
class Tuned:
    """The model as it is after training, what training gave beside it, and what all of tuning took."""

    model: Any
    result: TrainingResult
    cost: TuningCost


def publish(
    prepared: Prepared,
    directory: RunDirectory,
    base: Mapping[str, Any],
    tuned: Tuned,
    evaluations: Mapping[str, Evaluation],
) -> None:
    """Compare the tuned model with the base model and the baselines, and write everything.

    Args:
        base: what the run's history has of the base model and the baselines.
        evaluations: of the tuned model, by split.
    """
    from featherweight.report.page import one_run

    split, kind = prepared.evaluated_split, prepared.task.answer
    gate.require_other_answers(directory.read_predictions("base", split).answers, evaluations[split].answers)
    case = _case(prepared, directory, evaluations)
    found: dict[str, Any] = {
        **measured(prepared, base, tuned.model, evaluations, tuned.result, tuned.cost),
        **{key: base[key] for key in ("suspects",) if key in base},
        kind.described.key: described(kind, prepared.examples),
        **_evidence(case, prepared, directory, base),
    }
    found["training_warnings"] = _training_warnings(prepared, tuned.result, evaluations[split], found["rungs"])
    found["training_warnings"] += heeding.caution(found)
    found["headline"] = headline(found)
    passed = _publish_artefact(prepared, directory, tuned.model, case, found)
    found["reliability"] = reliability(directory, tuned.result.metrics, passed)
    metrics = cast(Outcome, found)
    directory.write_text(directory.report, one_run(directory, metrics))
    directory.write_json(directory.metrics, metrics)


def write_artefact(
    prepared: Prepared, directory: RunDirectory, model: Any, calibration: Mapping[str, Any], folder: Path
) -> None:
    """Fill ``folder`` with what is shipped, but for the card: weights, tokenizer, the facts for inference."""
    from featherweight.inference.loading import facts

    task, source, tokenizer = prepared.task, prepared.source, prepared.tokenizer
    prepared.method.save(model, folder, source.name, source.revision)
    if tokenizer.is_fast:  # so that it cuts as the run did, also where its file is read without transformers
        tokenizer.backend_tokenizer.enable_truncation(prepared.cutting.max_length, direction=tokenizer.truncation_side)
    tokenizer.save_pretrained(str(folder))
    texts = prepared.recipe.data.texts
    together = prepared.execution.equal_lengths
    known = facts(task, source, prepared.cutting, tokenizer.pad_token_id, calibration, texts, together)
    known["base_model"] |= prepared.recipe.model.holding
    directory.write_json(folder / FACTS, known)


def _publish_artefact(
    prepared: Prepared, directory: RunDirectory, model: Any, case: Case, found: Mapping[str, Any]
) -> Gate:
    """The artefact, once it answers as the model in memory does."""
    from featherweight.report.model_card import model_card

    fitted = travels(case.kind, case.fitted["tuned"])
    half = prepared.trunk is not None and prepared.trunk["dtype"] == "fp16"
    accelerator = None if prepared.recipe.training.fsdp else prepared.accelerator
    passed: list[Gate] = []

    def fill(folder: Path) -> None:
        write_artefact(prepared, directory, model, fitted, folder)
        artefact, head = prepared.method.artefact, prepared.head
        card = model_card(prepared.recipe, prepared.source, prepared.task, found, artefact, head)
        (folder / "README.md").write_text(card, encoding="utf-8")
        encoding = prepared.encodings[prepared.evaluated_split]
        precision = prepared.execution.precision
        passed.append(gate.require_same_answers(folder, encoding, case.tuned, precision, half, accelerator))

    directory.publish_folder(prepared.method.artefact, fill)
    return passed[-1]


def _training_warnings(
    prepared: Prepared, result: TrainingResult, tuned: Evaluation, rungs: Mapping[str, Any]
) -> list[str]:
    """What of the training and of the answers to the evaluated split a reader must know."""
    split, kind = prepared.evaluated_split, prepared.task.answer
    guessing = kind.uninformed_loss(prepared.examples["train"].truth)
    return kind.cautions(split, tuned.answers, prepared.examples[split].truth) + training_checks.warnings(
        [one.metrics["eval_loss"] for one in result.epochs],
        result.steps,
        prepared.settings.model_dump(),
        trained=(result.epochs[-1].training_loss, guessing) if result.epochs and prepared.objective.is_own else None,
        ahead=[name for name, pair in rungs.items() if pair["verdict"] == "worse"],
        rate_is_given="training.learning_rate" not in prepared.reasons,
    )


def _case(prepared: Prepared, directory: RunDirectory, tuned: Mapping[str, Evaluation]) -> Case:
    """What the evidence is found in: the evaluated split, answered by both models."""
    split, data = prepared.evaluated_split, prepared.recipe.data
    held = None
    if split != SELECTION_SPLIT:
        before = directory.read_predictions("base", SELECTION_SPLIT)
        held = Held(before.answers, tuned[SELECTION_SPLIT].answers, before.truth)
    return Case(
        prepared.task.answer,
        prepared.examples[split],
        directory.read_predictions("base", split).answers,
        tuned[split].answers,
        prepared.recipe.training.seed,
        fitting=held,
        slice_columns=data.slices,
        keywords=data.keywords,
        group_column=data.group,
        asked=prepared.recipe.evidence,
        writing=written(prepared, directory),
        beside=beside(directory),
        swapped=swapped(directory),
    )


def _evidence(case: Case, prepared: Prepared, directory: RunDirectory, base: Mapping[str, Any]) -> dict[str, Any]:
    """What the predictions on the evaluated split prove, from the run's own files."""
    split, checked = prepared.evaluated_split, base["data_checks"]
    rivals = {name: directory.read_predictions(name, split).answers for name in base["baselines"]}
    known = {"without_twins": np.isin(case.examples.ids, checked["twins"][split]["ids"])}
    if prepared.recipe.data.group is not None:
        known["without_shared_groups"] = np.isin(case.examples.ids, checked["shared_groups"][split]["ids"])
    return assess(case, rivals, known)
