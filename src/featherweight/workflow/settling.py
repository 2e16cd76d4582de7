"""Choices that a recipe leaves open and that are made before its model is loaded, each with its reason."""

from __future__ import annotations

from typing import cast

from featherweight.errors import ConfigError
from featherweight.process import launch
from featherweight.recipe import Recipe
from featherweight.registry import METHODS
from featherweight.sources import models
from featherweight.sources.models import ModelSource
from featherweight.tasks import Task, Writes, heads, task_of
from featherweight.workflow import defaults
from featherweight.workflow.reading import Rows
from featherweight.workflow.starting import Start


def held(recipe: Recipe, source: ModelSource, reasons: dict[str, str]) -> Recipe:
    """The recipe with the dtype that the base model's frozen weights are held in, and whether processes share them out.

    Raises ConfigError where they can't be held so.
    """
    if launch.shards() and not recipe.training.fsdp:
        reasons["training.fsdp"] = "asked for by accelerate launch"
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"fsdp": True})})
    if recipe.model.quantization is not None:
        from featherweight.sources.held import require_package

        require_package()
    problem = METHODS[recipe.method.name](recipe.method).unheld
    if recipe.model.dtype == "auto":
        dtype = "float32" if problem else heads.held_dtype(recipe.model, source)
        reasons["model.dtype"] = f"{recipe.method.name} {problem}" if problem else f"as {source.name} is stored"
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})})
    holding = [f"model.{key}" for key in recipe.model.holding] + ["training.fsdp"] * recipe.training.fsdp
    if problem and holding:
        raise ConfigError(
            f"{holding[0]}: not for {recipe.method.name}, which {problem}; leave it out, or choose another method"
        )
    return recipe


def with_head(recipe: Recipe, is_fresh: bool, reasons: dict[str, str]) -> Recipe:
    """The recipe with what its head begins at."""
    recipe, chosen = defaults.choose_head(recipe, is_fresh)
    reasons |= chosen
    return recipe


def deciding(recipe: Recipe, read: Rows, reasons: dict[str, str]) -> Recipe:
    """With the label that a decision threshold is for, the rarer of train where that is left open.

    Raises ConfigError where answers are not one of two labels, or none is called so; and where they are to be written
    and there are no prompts.
    """
    _require_prompts(recipe, read)
    evidence, kind = recipe.evidence, read.task.answer
    if evidence.decision_threshold is None:
        return recipe
    if "decision-threshold" not in kind.exhibits or len(kind.possible) != 2:
        have = f"has {len(kind.possible)} labels" if kind.possible else "answers otherwise"
        raise ConfigError(
            f"evidence.decision_threshold: is for one of two labels, and {recipe.task} here {have}; leave it out"
        )
    if evidence.pos_label is None:
        shares = kind.describe(read.examples["train"].truth)
        rarer = min(reversed(kind.possible), key=shares.__getitem__)
        reasons["evidence.pos_label"] = f"the rarer label of train ({shares[rarer]:.1%} of its rows)"
        evidence = evidence.model_copy(update={"pos_label": rarer})
    if evidence.pos_label not in kind.possible:
        raise ConfigError(
            f"evidence.pos_label: {evidence.pos_label!r} is no label of the data; known: {', '.join(kind.possible)}"
        )
    return recipe.model_copy(update={"evidence": evidence})


def as_it_answers(task: Task, start: Start | None, source: ModelSource, recipe: Recipe) -> Task:
    """The task as what training starts from answers already. Outputs with names are matched by these; those without
    have a scale, which a trained head keeps whatever the data's is."""
    if task.head().names is not None or task.head().is_pretrained:
        return task
    if start is not None:
        return task_of(start.origin.known)
    stored = type(task).of_model(models.load_config(source)) if recipe.model.head == "auto" else None
    return task if stored is None else stored


def as_trained(task: Task, recipe: Recipe) -> Task:
    """The task with the keys of ``[training]`` that say what its answers are."""
    kind = task.answer
    said = {key: value for key, value in recipe.training if key in kind.known}
    return type(task).of_answer(type(kind).of_facts(kind.facts() | said)) if said else task


def _require_prompts(recipe: Recipe, read: Rows) -> None:
    replying = getattr(read.task.answer, "replying", None)
    if replying is not None and recipe.evaluation.forgetting_file is not None:
        raise ConfigError(
            f"evaluation.forgetting_file: a model for {recipe.task} replies to texts and foretells none by itself; "
            "leave it out"
        )
    if not recipe.evaluation.generate:
        return
    question, _ = next(cast(Writes, read.task).to_write(read.examples["validation"]))
    if not question.text:
        raise ConfigError(
            "evaluation.generate: the rows are texts without a prompt, so there is nothing to answer; leave it out, or "
            "name the column of the prompts with data.text"
        )
