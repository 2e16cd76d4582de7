"""A finished run in another form, published only where it is shown to answer as the run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight import recipe as recipes
from featherweight.answers import headline_of, travels
from featherweight.errors import ConfigError, DataError, Interrupted
from featherweight.evidence import equivalence
from featherweight.evidence.exhibits import fit_on_half
from featherweight.export import Format, Subject
from featherweight.process.signals import Stop, stop_on_signals
from featherweight.recipe import Recipe
from featherweight.records.rows import Examples
from featherweight.registry import EXPORTS, METHODS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.report.export_card import export_card
from featherweight.runs.directory import FACTS, RunDirectory
from featherweight.storage import whole
from featherweight.workflow.own_data import read_own_data
from featherweight.workflow.preparing import SELECTION_SPLIT

if TYPE_CHECKING:
    from featherweight.inference.predictor import Predictor


def export(
    target: str | Path,
    format: str,  # noqa: A002 - the option's name
    output_dir: str | Path | None = None,
    *,
    margin: float = equivalence.MARGIN,
    min_agreement: float = equivalence.AGREEMENT,
    base_model: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a run's model in another format, prove it on the run's validation rows, and publish it.

    Args:
        format: ``adapter``, ``merged``, ``onnx`` or ``onnx-int8``.
        output_dir: must not exist yet or be empty; ``<run>/exports/<format>`` if None.
        margin: loss of accuracy that has to be ruled out at 95 % confidence, where numbers are rounded (int8).
        min_agreement: share of rows that have to get the same label, there.
        base_model: where the run's base model is on this machine; where the run says itself if None.

    Returns:
        The evidence, which the export's ``featherweight.json`` and card hold too.

    Raises:
        UnprovenError: it does not answer as the run does; nothing is published.
        ConfigError: the run can't be had in this format, or the folder is taken.
        DataError: the run's data is gone or has changed.
    """
    console = console or Console(quiet=True)
    job = _Job.of(RunDirectory(target), format, base_model, margin, min_agreement)
    output = Path(output_dir or job.directory.path / "exports" / format)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"{output}: exists already; choose another --output-dir")
    with stop_on_signals(console.say) as stop:
        step = partial(_step, console, stop)
        examples = _validation(job)
        with whole.writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
        with whole.writing(output), whole.new_folder(output) as folder:
            evidence = _fill(job, folder, examples, step)
            step(f"publishing {output}")
            _publish(folder, output)
    console.show(tables.key_values(f"{format}, as the run answers", _shown(evidence)))
    return {**evidence, "output": str(output)}


@dataclass(frozen=True)
class _Job:
    """What is exported, in which form, and what has to be shown of it; the names are those of :func:`export`."""

    directory: RunDirectory
    recipe: Recipe
    format: str
    exporter: Format
    base_model: str | None
    margin: float
    min_agreement: float

    @classmethod
    def of(
        cls, directory: RunDirectory, name: str, base_model: str | None, margin: float, min_agreement: float
    ) -> _Job:
        """Raises ConfigError where the run can't be had in this format."""
        directory.read_metrics()
        recipe = recipes.load(directory.recipe)
        exporter: Format = EXPORTS[name]()
        job = cls(directory, recipe, name, exporter, base_model, margin, min_agreement)
        exporter.require(job.artefact)
        return job

    @property
    def artefact(self) -> Path:
        """What the run published."""
        artefact: str = METHODS[self.recipe.method.name].artefact
        return self.directory.path / artefact


def _step(console: Console, stop: Stop, what: str) -> None:
    if stop():
        raise Interrupted("stopped while exporting; nothing was published")
    console.begin(what)


def _fill(job: _Job, folder: Path, examples: Examples, step: Callable[[str], None]) -> dict[str, Any]:
    """Write the export into the folder and prove it there; gives the evidence."""
    step(f"writing {job.format}")  # first, for a model may be none that can be had in it
    facts = _write(job, folder)
    step("answering the validation rows with the run")
    answers = _Answers.of(str(job.directory.path), examples, job.base_model)
    step("answering the same rows with the export")
    exported = _Answers.of(str(folder), examples, job.base_model if job.format == "adapter" else None)
    proved = _prove(job, examples, answers, exported)
    evidence = {"format": job.format, "run": job.recipe.name, "size_bytes": _size(folder), **proved}
    evidence["batch_dependence"] = job.directory.read_metrics().get("batch_dependence")
    if not job.exporter.is_exact:
        facts |= _own_fit(job, examples, exported)
    job.directory.write_json(folder / FACTS, {**facts, "export": evidence})
    if job.format != "adapter":  # which has the run's own card, with the lines that load it
        job.directory.write_text(folder / "README.md", export_card(evidence, exported.task))
    return evidence


class _Answers:
    """What something answers to some rows, and how fast.

    Attributes:
        answers: in the order of the rows.
        speed: ``latency_ms`` of a text alone, the median, and ``texts_per_second`` of all together.
    """

    def __init__(self, predictor: Predictor, examples: Examples) -> None:
        self.task, self.kind = predictor.task, predictor.kind
        self.answers, self.speed = equivalence.answer_and_time(predictor.answers, examples.questions())

    @classmethod
    def of(cls, name: str, examples: Examples, base_model: str | None) -> _Answers:
        from featherweight.inference.predictor import load_predictor

        return cls(load_predictor(name, base_model=base_model), examples)


def _validation(job: _Job) -> Examples:
    """The validation rows of the run, which it did not train on. Raises DataError where they can't be had again."""
    own = read_own_data(job.directory, job.recipe)
    if SELECTION_SPLIT not in own.kept:
        raise DataError(
            f"{', '.join(own.changed)} changed since {job.directory.path} was made, so an export can't be proved on "
            "rows that the run held out; bring the data back as it was"
        )
    return own.examples[SELECTION_SPLIT]


def _write(job: _Job, folder: Path) -> dict[str, Any]:
    """Fill the folder; gives what the export has to know of itself."""
    from featherweight.inference import loading
    from featherweight.sources.json_files import read_json

    loaded = loading.load(str(job.directory.path), base_model=job.base_model)
    lacking = {"pad_token_id": loaded.tokenizer.pad_token_id, **loaded.task.answer.unfitted}  # in facts of before
    facts = {**lacking, **read_json(job.artefact / FACTS)}
    job.exporter.write(Subject(loaded.model, loaded.tokenizer, job.artefact, facts), folder)
    job.directory.write_json(folder / FACTS, facts)
    return facts


def _prove(job: _Job, examples: Examples, answers: _Answers, exported: _Answers) -> dict[str, Any]:
    pair = answers.answers, exported.answers
    likeness = answers.kind.likeness(*pair)
    evidence = equivalence.measure(
        answers.kind, *pair, examples.truth, likeness, examples.groups(job.recipe.data.group)
    )
    if job.exporter.is_exact:
        equivalence.require_equal(evidence, likeness)
    else:
        evidence |= {"margin": job.margin, "min_agreement": job.min_agreement}
        equivalence.require_no_worse(evidence, likeness)
    return {**evidence, "speed": {"run": answers.speed, "export": exported.speed}}


def _own_fit(job: _Job, examples: Examples, exported: _Answers) -> dict[str, Any]:
    """Rounding moves answers, so what the run fitted to its own is fitted to these anew."""
    asked = exported.answers, examples.truth, job.recipe.training.seed, examples.groups(job.recipe.data.group)
    return travels(exported.kind, fit_on_half(exported.kind, *asked, job.recipe.evidence))


def _publish(folder: Path, output: Path) -> None:
    """Every byte on disk first, then the name."""
    whole.sync_tree(folder)
    folder.rename(output)  # takes the place of an empty folder
    whole.sync(output.parent)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _shown(evidence: dict[str, Any]) -> dict[str, Any]:
    speed, metric, of = evidence["speed"], evidence["comparison"]["metric"], evidence["of"]
    title = headline_of(evidence).title
    return {
        "rows": f"{evidence['n']:,}",
        f"same {evidence['decisions']}": f"{evidence['agreement']:.4f}",
        f"greatest difference of a {of}": f"{evidence[f'max_{of}_difference']:.1e}",
        f"{title} of the run": f"{evidence[metric]['run']:.4f}",
        f"{title} of the export": f"{evidence[metric]['export']:.4f}",
        "size": f"{evidence['size_bytes'] / 1e6:.1f} MB",
        "a text alone": f"{speed['export']['latency_ms']:.1f} ms (run {speed['run']['latency_ms']:.1f} ms)",
        "texts a second": f"{speed['export']['texts_per_second']:.0f} (run {speed['run']['texts_per_second']:.0f})",
    }
