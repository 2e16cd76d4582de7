"""A finished run in another form, published only where it is shown to answer as the run does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight import recipe as recipes
from featherweight.answers import headline_of
from featherweight.errors import ConfigError, DataError, Interrupted
from featherweight.evidence import equivalence
from featherweight.evidence.exhibits import fit_on_half
from featherweight.export import Format, Subject
from featherweight.process.signals import stop_on_signals
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
    directory = RunDirectory(target)
    directory.read_metrics()
    recipe = recipes.load(directory.recipe)
    exporter: Format = EXPORTS[format]()
    exporter.require(directory.path / METHODS[recipe.method.name].artefact)
    output = Path(output_dir or directory.path / "exports" / format)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"{output}: exists already; choose another --output-dir")
    with stop_on_signals(console.say) as stop:

        def step(what: str) -> None:
            if stop():
                raise Interrupted("stopped while exporting; nothing was published")
            console.begin(what)

        examples = _validation(directory, recipe)
        with whole.writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
        with whole.writing(output), whole.new_folder(output) as folder:
            step(f"writing {format}")  # first, for a model may be none that can be had in it
            facts = _write(exporter, directory, recipe, folder, base_model)
            step("answering the validation rows with the run")
            answers = _Answers.of(str(directory.path), examples, base_model)
            step("answering the same rows with the export")
            exported = _Answers.of(str(folder), examples, base_model if format == "adapter" else None)
            evidence = _prove(exporter, recipe, examples, answers, exported, margin, min_agreement)
            evidence = {"format": format, "run": recipe.name, "size_bytes": _size(folder), **evidence}
            evidence["batch_dependence"] = directory.read_metrics().get("batch_dependence")
            if not exporter.is_exact:
                facts |= _own_fit(exported, examples, recipe)
            directory.write_json(folder / FACTS, {**facts, "export": evidence})
            if format != "adapter":  # which has the run's own card, with the lines that load it
                directory.write_text(folder / "README.md", export_card(evidence, facts["labels"]))
            step(f"publishing {output}")
            _publish(folder, output)
    console.show(tables.key_values(f"{format}, as the run answers", _shown(evidence)))
    return {**evidence, "output": str(output)}


class _Answers:
    """What something answers to some rows, and how fast.

    Attributes:
        answers: in the order of the rows.
        speed: ``latency_ms`` of a text alone, the median, and ``texts_per_second`` of all together.
    """

    def __init__(self, predictor: Predictor, examples: Examples) -> None:
        self.kind = predictor.kind
        self.answers, self.speed = equivalence.answer_and_time(predictor.answers, examples.all_texts())

    @classmethod
    def of(cls, name: str, examples: Examples, base_model: str | None) -> _Answers:
        from featherweight.inference.predictor import load_predictor

        return cls(load_predictor(name, base_model=base_model), examples)


def _validation(directory: RunDirectory, recipe: Recipe) -> Examples:
    """The validation rows of the run, which it did not train on. Raises DataError where they can't be had again."""
    own = read_own_data(directory, recipe)
    if SELECTION_SPLIT not in own.kept:
        raise DataError(
            f"{', '.join(own.changed)} changed since {directory.path} was made, so an export can't be proved on rows "
            "that the run held out; bring the data back as it was"
        )
    return own.examples[SELECTION_SPLIT]


def _write(
    exporter: Format, directory: RunDirectory, recipe: Recipe, folder: Path, base_model: str | None
) -> dict[str, Any]:
    """Fill the folder; gives what the export has to know of itself."""
    from featherweight.inference import loading
    from featherweight.sources.json_files import read_json

    loaded = loading.load(str(directory.path), base_model=base_model)
    artefact = directory.path / METHODS[recipe.method.name].artefact
    facts = {"pad_token_id": loaded.tokenizer.pad_token_id, "thresholds": [], **read_json(artefact / FACTS)}
    exporter.write(Subject(loaded.model, loaded.tokenizer, artefact, facts), folder)
    directory.write_json(folder / FACTS, facts)
    return facts


def _prove(
    exporter: Format,
    recipe: Recipe,
    examples: Examples,
    answers: _Answers,
    exported: _Answers,
    margin: float,
    min_agreement: float,
) -> dict[str, Any]:
    groups, pair = _groups(examples, recipe), (answers.answers, exported.answers)
    likeness = answers.kind.likeness(*pair)
    evidence = equivalence.measure(answers.kind, *pair, examples.labels, likeness, groups)
    if exporter.is_exact:
        equivalence.require_equal(evidence, likeness)
    else:
        evidence |= {"margin": margin, "min_agreement": min_agreement}
        equivalence.require_not_inferior(evidence, likeness)
    return {**evidence, "speed": {"run": answers.speed, "export": exported.speed}}


def _groups(examples: Examples, recipe: Recipe) -> list[str | None] | None:
    return examples.groups(recipe.data.group) if recipe.data.group else None


def _own_fit(exported: _Answers, examples: Examples, recipe: Recipe) -> dict[str, Any]:
    """Rounding moves answers, so what the run fitted to its own is fitted to these anew."""
    asked = exported.answers, examples.labels, recipe.training.seed, _groups(examples, recipe)
    found = fit_on_half(exported.kind, *asked)
    return {key: found[key] for key in exported.kind.unfitted}


def _publish(folder: Path, output: Path) -> None:
    """Every byte on disk first, then the name."""
    whole.sync_tree(folder)
    folder.rename(output)  # takes the place of an empty folder
    whole.sync(output.parent)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _shown(evidence: dict[str, Any]) -> dict[str, Any]:
    speed, metric, title = evidence["speed"], evidence["comparison"]["metric"], headline_of(evidence).title
    return {
        "rows": f"{evidence['n']:,}",
        "same label": f"{evidence['agreement']:.4f}",
        **{
            f"greatest difference of a {key.split('_')[1]}": f"{value:.1e}"
            for key, value in evidence.items()
            if key.startswith("max_")
        },
        f"{title} of the run": f"{evidence[metric]['run']:.4f}",
        f"{title} of the export": f"{evidence[metric]['export']:.4f}",
        "size": f"{evidence['size_bytes'] / 1e6:.1f} MB",
        "a text alone": f"{speed['export']['latency_ms']:.1f} ms (run {speed['run']['latency_ms']:.1f} ms)",
        "texts a second": f"{speed['export']['texts_per_second']:.0f} (run {speed['run']['texts_per_second']:.0f})",
    }
