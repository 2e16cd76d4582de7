"""The main path. Read :func:`carry_out` first: it is the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from featherweight import recipe as recipes
from featherweight.answers import headline_of, kind_of
from featherweight.evidence.data import checks
from featherweight.evidence.exhibits import exhibits_of
from featherweight.methods import Adapted
from featherweight.process.signals import Stop, stop_on_signals
from featherweight.recipe import Recipe, TrainingSection
from featherweight.records.answers import Evaluation
from featherweight.records.outcome import TrainingCost, TuningCost
from featherweight.records.runs import RunRecord
from featherweight.records.training import TrainingResult
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.report.fitted import FittedTable
from featherweight.runs.directory import RunDirectory
from featherweight.storage.whole import held
from featherweight.tracking import following
from featherweight.workflow import gate, rounding, together
from featherweight.workflow.beginning import begin_at_probe
from featherweight.workflow.beside import measure_beside
from featherweight.workflow.collecting import token_cautions, truncation, with_interval
from featherweight.workflow.laying import lay
from featherweight.workflow.once import Once
from featherweight.workflow.preparing import (
    Prepared,
    adapt,
    count_parameters,
)
from featherweight.workflow.publishing import Tuned, publish, write_artefact
from featherweight.workflow.referring import refer
from featherweight.workflow.resuming import explained, find_checkpoint, record, taken
from featherweight.workflow.rungs import measure_baselines, measure_model
from featherweight.workflow.suspects import list_suspects, without_suspects
from featherweight.workflow.training import cache_trunk, train
from featherweight.workflow.writing import write_answers

if TYPE_CHECKING:
    from featherweight.engine.training.checkpoints import Checkpoint, Checkpoints

TRAINED = "trained"  # of a run that went as far as its last step, for another time to publish it


@dataclass(frozen=True)
class Sitting:
    """How a run is gone through this time; none of it decides the outcome.

    Attributes:
        console: where tables and progress go.
        resume, force, continue_with: as for :func:`run`.
        once: what runs before this one have made already.
        observe: is told of every event of the training, once the history has it.
        enough: is asked between steps whether to end here, as a stop does.
        keep_failed: whether what a run wrote that failed stays in its folder.
    """

    console: Console
    resume: bool | str = False
    force: bool = False
    continue_with: str | None = None
    once: Once = field(default_factory=Once)
    observe: Callable[[dict[str, Any]], None] = lambda event: None
    enough: Callable[[], bool] = lambda: False
    keep_failed: Callable[[], bool] = lambda: False


def run(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    resume: bool | str = False,
    force: bool = False,
    console: Console | None = None,
    continue_with: str | None = None,
    progress: bool = True,
) -> RunRecord:
    """Measure the base model, tune it, measure again, compare, publish.

    Args:
        recipe: what to do, from :func:`featherweight.recipe.load`.
        output_dir: the run's folder; ``runs/<recipe's name>`` if None.
        resume: True continues from the newest checkpoint that is whole; a path names one checkpoint.
        force: begin even where the disk seems too small.
        console: where tables and progress go; bars by tqdm alone if None, and nothing without ``progress``.
        continue_with: the command that a stopped run tells the user to give.

    Raises FeatherweightError, one of its kinds, each with its exit code.
    """
    directory = RunDirectory(output_dir or Path("runs") / recipe.name)
    if together.join():
        return together.follow(recipe, directory, continue_with)
    sitting = Sitting(console or Console.in_python(progress), resume, force, continue_with)
    return carry_out(recipe, directory, sitting)


def carry_out(recipe: Recipe, directory: RunDirectory, sitting: Sitting) -> RunRecord:
    """The whole of a run, in a folder where it may have begun already."""
    console = sitting.console
    with _begun(recipe, directory, sitting) as (prepared, stop):
        if directory.is_complete:
            console.say(f"{directory.path}: complete already{directory.going_on()}")
        else:
            base = _measure_base(prepared, directory, console, stop)
            tuned = _tune(prepared, directory, base, sitting, stop)
            rounding.end(prepared)
            evaluations = _measure(prepared, directory, tuned.model, "tuned", console, stop)
            with stop.at_once("publishing"):
                console.begin("publishing")
                publish(prepared, directory, base, tuned, evaluations)
            directory.tell({"event": "finished"})
    return together.end(prepared, finish(directory, console))


def train_only(recipe: Recipe, directory: RunDirectory, sitting: Sitting) -> tuple[TrainingResult, TrainingSection]:
    """A run as far as its last step, from where :func:`carry_out` goes on: nothing is measured of the tuned model but
    what its training measures.

    Returns:
        What training gave, and the settings that it followed.
    """
    with _begun(recipe, directory, sitting) as (prepared, stop):
        base = _measure_base(prepared, directory, sitting.console, stop)
        tuned = _tune(prepared, directory, base, sitting, stop)
        directory.append_history({"event": TRAINED, "cost": tuned.cost})
        return tuned.result, prepared.settings


@contextmanager
def _begun(recipe: Recipe, directory: RunDirectory, sitting: Sitting) -> Iterator[tuple[Prepared, Stop]]:
    """Within this context the folder is the run's, all that it needs is ready, and signals are a wish to stop."""
    console = sitting.console
    with (
        following(recipe, directory, console.say),
        stop_on_signals(console.say) as stop,
        held(directory.path),
        taken(directory, bool(sitting.resume), sitting.keep_failed),
        explained(directory, sitting.continue_with),
        together.in_step(console),
    ):
        prepared = together.prepared(recipe, console, stop, sitting.once)
        directory.create(prepared.identity(), prepared.environment())
        yield prepared, stop


def load_run(path: str | Path) -> RunRecord:
    """A finished run, from its folder. Raises ModelError where it is not complete."""
    return RunRecord(str(path), RunDirectory(path).read_metrics())


def _measure_base(prepared: Prepared, directory: RunDirectory, console: Console, stop: Stop) -> dict[str, Any]:
    """The data's checks, the cheap baselines and the model as it is; a resumed run finds what it measured before."""
    for event in directory.read_history():
        if event["event"] == "base":
            return dict(event)
    if found := prepared.once.measured(prepared.measured_as, directory):
        list_suspects(prepared, directory)
        directory.append_history(found)
        return found
    from featherweight.engine.cost import Meter

    with stop.at_once("checking the data"):
        console.begin("checking the data")
        list_suspects(prepared, directory)
        checked = checks.check(
            prepared.task.answer,
            prepared.examples,
            prepared.prints,
            prepared.recipe.training.seed,
            prepared.recipe.data.group,
        )
        checked["warnings"] += [*checks.truncation_warnings(truncation(prepared)), *token_cautions(prepared)]
        console.show(*(f"Take care: {line}" for line in checked["warnings"]))
    with stop.at_once("measuring the baselines"):
        baselines, left_out = measure_baselines(prepared, directory, console, stop)
        dropped = without_suspects(prepared, console, stop)
    started = prepared.model if prepared.start is None else adapt(prepared, console).model
    with Meter() as meter:
        evaluations = _measure(prepared, directory, started, "base", console, stop)
    measured = {name: with_interval(prepared, name, one) for name, one in evaluations.items()}
    measured[prepared.evaluated_split]["cost"] = meter.cost()
    event = {"event": "base", "baselines": baselines, "metrics": measured, "data_checks": checked}
    event |= {**dropped, **({"baselines_left_out": left_out} if left_out else {})}
    event |= prepared.once.marked(prepared.measured_as)
    directory.append_history(event)
    return event


def _measure(
    prepared: Prepared, directory: RunDirectory, model: Any, name: str, console: Console, stop: Stop
) -> dict[str, Evaluation]:
    """A state of the model on every measured split; of one that continues texts also what it writes, and what it knows
    beside what it is tuned for."""
    evaluations = measure_model(prepared, directory, model, name, console, stop)
    if prepared.task.scores_tokens:
        write_answers(prepared, directory, model, name, console, stop)
        measure_beside(prepared, directory, model, name, console, stop)
    return evaluations


def _tune(
    prepared: Prepared,
    directory: RunDirectory,
    base: Mapping[str, Any],
    sitting: Sitting,
    stop: Stop,
) -> Tuned:
    """Adapt the model, try on it all that could fail after hours of training, and train."""
    from featherweight.engine.cost import Meter
    from featherweight.engine.training.checkpoints import Checkpoints, size_of

    training, console, resume = prepared.recipe.training, sitting.console, sitting.resume
    before = [dict(event["cost"]) for event in directory.read_history() if event["event"] == TRAINED]
    with Meter() as meter:
        refer(prepared, directory, console, stop)
        checkpoints = Checkpoints(directory.checkpoints, training.save_total_limit, prepared.identity())
        start = find_checkpoint(checkpoints, directory, resume, console)
        if start is None:
            begin_at_probe(prepared, console, stop)
        adapted = _adapt(prepared, directory, console, stop)
        directory.forget_history_after(start.step if start else 0)
        if resume and not before:
            record(directory, start.step if start else 0, prepared.environment(), console)
        if not sitting.force:
            trainable, _ = count_parameters(adapted.model)
            checkpoints.require_room(size_of(adapted.model), 4 * trainable)
        if start is None:
            _try_publishing(prepared, directory, adapted.model, stop)
        rounding.settle(prepared, adapted.model, directory, console, stop)
        if training.time_limit is not None:
            with stop.at_once("rehearsing a few steps"):
                lay(prepared, directory, base, console)
        if prepared.settings != training:
            _record_choices(prepared, directory, adapted.chosen)
        result, of_others = _train(prepared, directory, adapted.model, checkpoints, start, sitting, stop)
    meter.processor_seconds += of_others
    cost: TuningCost = {**meter.cost(), "energy": meter.energy()}
    return Tuned(adapted.model, result, cast(TuningCost, before[-1]) if before else cost)


def _adapt(prepared: Prepared, directory: RunDirectory, console: Console, stop: Stop) -> Adapted:
    """The model with what trains in it, above its frozen trunk's kept output where that is asked for."""
    adapted = adapt(prepared, console)
    directory.note_batches(prepared.execution.describe_batches())
    _record_choices(prepared, directory, adapted.chosen)
    console.show(tables.parameters(*count_parameters(adapted.model)))
    if prepared.recipe.training.trunk_cache != "off":
        prepared.trunk = cache_trunk(prepared, console, stop)
        console.say("frozen trunk: {frozen_blocks} blocks run once, without dropout".format(**prepared.trunk))
    return adapted


def _try_publishing(prepared: Prepared, directory: RunDirectory, model: Any, stop: Stop) -> None:
    """Write the model before it is trained and read it back, so that a run does not find out at its end."""
    with stop.at_once("trying what would be published"), directory.trial_folder() as folder:
        write_artefact(prepared, directory, model, prepared.task.answer.unfitted, folder)
        gate.require_gradients(model, prepared.execution, prepared.head)
        converts = prepared.start is None and prepared.method.converts
        gate.require_readable(folder, model, prepared.without_weights, prepared.head, converts)


def _train(
    prepared: Prepared,
    directory: RunDirectory,
    model: Any,
    checkpoints: Checkpoints,
    start: Checkpoint | None,
    sitting: Sitting,
    stop: Stop,
) -> tuple[TrainingResult, float]:
    """Train from ``start``, or from the beginning, with each event in the run's history; and what processor seconds
    that took other processes."""
    from featherweight.engine import TRANSIENT
    from featherweight.engine.training.checkpoints import Shared

    console = sitting.console

    def observe(event: dict[str, Any]) -> None:
        if event["event"] not in TRANSIENT:
            directory.append_history(event)
        console.observe(event)
        sitting.observe(event)

    def enough() -> bool:
        return stop() or sitting.enough()

    before, fleet = gate.fingerprints(model), prepared.execution.fleet
    directory.tell({"event": "started", "step": start.step if start else 0})
    fleet.announce("train")
    result, of_others = train(prepared, Shared(fleet, checkpoints), start, observe, console, stop, enough)
    gate.require_effect(model, before, prepared.head)
    console.say(_cost_of_saves(result.metrics))
    return result, of_others


def finish(directory: RunDirectory, console: Console) -> RunRecord:
    """Show a complete run's results, from its files alone."""
    metrics = directory.read_metrics()
    first = headline_of(metrics)
    briefs = [brief for one in exhibits_of(kind_of(metrics)) for brief in one.brief(metrics)]
    console.show(
        tables.epochs(metrics["epochs"], first),
        tables.evaluations({"base model": metrics["base"], "tuned model": metrics["tuned"]}, first),
        tables.ladder(metrics),
        tables.selection(metrics),
        *map(FittedTable.of, briefs),
        *(f"Take care: {line}" for line in tables.cautions(metrics)),
        f"\n{tables.verdict(metrics)}",
        tables.against_baselines(metrics),
        f"\nEverything is in {directory.path}. Try it:",
        tables.command(tables.predict_command(directory.path, metrics)),
    )
    return RunRecord(str(directory.path), metrics)


def _record_choices(prepared: Prepared, directory: RunDirectory, chosen: Mapping[str, tuple[Any, str]]) -> None:
    """Save the recipe as resolved, with the method's own choices and every reason."""
    reasons = prepared.reasons | {f"method.{key}": reason for key, (_, reason) in chosen.items()}
    method = prepared.recipe.method.model_copy(update={key: value for key, (value, _) in chosen.items()})
    training = prepared.settings
    resolved = prepared.recipe.model_copy(update={"method": method, "training": training, "sweep": None})
    directory.write_text(directory.recipe, recipes.dump(resolved, reasons, directory.path))


def _cost_of_saves(resources: TrainingCost) -> str:
    seconds, runtime = resources["save_seconds"], resources["train_runtime"]
    return (
        f"{resources['saves']:.0f} checkpoints saved in {seconds:.2f} s, {seconds / runtime:.1%} of the training time"
    )
