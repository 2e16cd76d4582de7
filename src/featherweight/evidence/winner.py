"""The winner of a sweep beside the recipe as it stands, on rows that chose neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from featherweight.answers import Answer, kind_of
from featherweight.evidence import several
from featherweight.evidence.verdict import held_back, is_withheld
from featherweight.records.sweeps import Compared
from featherweight.runs.predictions import Predictions

RECIPE, BEST = "the recipe as it stands", "the winner"


def compare(
    default: tuple[Predictions, Mapping[str, Any]], winner: tuple[Predictions, Mapping[str, Any]], seed: int
) -> Compared:
    """In pairs, by the headline and by every statistic.

    Where the better one is not shown to know anything, as with labels that texts say nothing about, chance made the two
    differ in what they guess: the verdict is held back.

    Args:
        default: answers of the recipe as it stands to the evaluated split, and the run's ``metrics.json``.
        winner: the same of the winner.
        seed: of the resampling.

    Raises:
        DataError: they were not measured on the same rows.
    """
    (row,) = several.against_first([(RECIPE, default[0]), (BEST, winner[0])], seed=seed)
    found = {key: value for key, value in row.items() if key not in {"run", "against", "p_value_holm"}}
    if found["verdict"] != "no-difference":
        ahead = winner[1] if found["verdict"] == "better" else default[1]
        name, what = kind_of(ahead).knows_nothing
        if ahead["rungs"].get(name, {"verdict": "better"})["verdict"] != "better":
            found |= {"verdict": "no-difference", "withheld": f"neither is shown to be better than {what}"}
    return cast(Compared, found)


def headline(found: Mapping[str, Any], kind: type[Answer]) -> str:
    """What a sweep showed, in words: the winner against the recipe as it stands, before anything else.

    Args:
        found: the content of ``sweep.json``, but for this.
    """
    pair, trials = found["comparison"], len(found["trials"])
    if pair is None:
        return _alone(found, trials)
    title = kind.statistics[0].title
    figures = found["comparison"]["paired"][pair["metric"]]
    low, high = pair["confidence_interval"]
    moved = (
        f"{title} {figures['base']:.4f} and {figures['tuned']:.4f}; {pair['difference']:+.4f}, 95% interval {low:+.4f} "
        f"to {high:+.4f}, p = {pair['p_value']:.3g}"
    )
    rows = f"on the {pair['n']:,} {found['evaluated_split']} rows, which chose nothing ({moved})"
    if "withheld" in pair:
        return f"Nothing is shown by {trials} trials: {RECIPE} and the winner differ {rows}, but {pair['withheld']}."
    if is_withheld(pair):
        return f"{held_back(f'The winner of {trials} trials', RECIPE, pair, moved, kind)}."
    if pair["verdict"] == "no-difference":
        least = pair["smallest_significant_difference"]
        sight = f" Differences under {least:.4f} could not have been told from chance." if least is not None else ""
        return f"No difference is shown between the winner of {trials} trials and {RECIPE} {rows}.{sight}"
    so = "" if pair["verdict"] == "better" else ": it was the best on validation by chance"
    return f"The winner of {trials} trials is {pair['verdict']} than {RECIPE} {rows}{so}."


def _alone(found: Mapping[str, Any], trials: int) -> str:
    first = found["trials"][0]
    if first["state"] == "complete":
        return f"The recipe as it stands is the best of {trials} trials on validation: nothing better was found."
    return (
        f"Trial {found['winner']['trial']} is the best of {trials} on validation. The recipe as it stands failed, so "
        f"there is nothing to compare it with: {first['reason']}."
    )


def flattery(found: Mapping[str, Any], kind: type[Answer]) -> str:
    """How hopeful the winner's figure is on the rows that chose it."""
    chosen, title = found["selection"], kind.statistics[0].title
    return (
        f"On the {chosen['rows']:,} {chosen['split']} rows, which chose it, the winner's {title} is "
        f"{chosen['chosen_on']:.4f}, and {chosen['untouched']:.4f} on {found['evaluated_split']}. Choosing the best of "
        f"{chosen['candidates']} flatters by at most {chosen['optimism_at_most']:.4f} on average, were all equally "
        "good and independent."
    )
