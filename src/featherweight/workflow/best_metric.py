"""``training.metric_for_best_model``: any statistic of the kind of answer, by whatever name it goes."""

from __future__ import annotations

from featherweight.answers import Answer, statistic_named, statistics_of
from featherweight.errors import ConfigError
from featherweight.recipe import Recipe
from featherweight.registry import did_you_mean

_NEGATED = "neg_"  # scikit-learn's scorers of errors: more of them is better


def settle(recipe: Recipe, kind: Answer, reasons: dict[str, str]) -> Recipe:
    """The recipe with the metric by the name that it has here, where it goes by another one.

    Raises:
        ConfigError: nothing of that name is measured; the message lists what is.
    """
    given = recipe.training.metric_for_best_model
    if given is None:
        return recipe
    name = given.removeprefix("eval_")
    if name == "loss":
        return recipe
    statistic = statistic_named(kind, name)
    if statistic is None:
        known = ["eval_loss", *(f"eval_{one.name}" for one in statistics_of(kind))]
        guess = did_you_mean(name, [one.removeprefix("eval_") for one in known])
        raise ConfigError(
            f"training.metric_for_best_model: {given!r} is not measured{guess}; known: {', '.join(known)}"
        )
    if name == statistic.name:
        return recipe
    greater = recipe.training.greater_is_better
    if name.startswith(_NEGATED) and greater is not None:
        greater = not greater
    reasons["training.metric_for_best_model"] = f"given as {given!r}"
    settled = {"metric_for_best_model": f"eval_{statistic.name}", "greater_is_better": greater}
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=settled)})
