"""The content of ``metrics.json``, key by key: a contract with whoever reads it.

Keys may be added; what one means never changes without a new ``schema_version``. ``make docs`` makes
``docs/metrics.schema.json`` from this file. Whatever a kind of answer, an exhibit or a third party adds is open: other
keys are allowed everywhere, and the ``eval_*`` figures are those that the kind measures.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Verdict = Literal["better", "worse", "no-difference"]
Interval = list[float]


class Cost(TypedDict):
    """What something took."""

    seconds: float
    """Seconds on the clock."""
    processor_seconds: float
    """Seconds of processor time, over all cores."""
    memory_growth_bytes: int | None
    """Bytes by which resident memory grew at most; null where it can't be read."""


class Energy(TypedDict):
    """Energy that tuning took."""

    joules: float
    """Joules."""
    estimate: bool
    """Whether it is an estimate by processor time rather than a counter's reading."""
    source: str
    """How the figure came about."""


class TuningCost(Cost):
    """What tuning took."""

    energy: Energy
    """Energy that tuning took."""


class Figures(TypedDict):
    """One model on one split: ``eval_<name>`` for each figure that the kind of answer measures, and the headline's 95 %
    interval as ``eval_<name>_interval``, [low, high]."""


class ModelFigures(Figures):
    """A model's figures on one split, with the loss and the times under the Trainer's names."""

    eval_loss: float
    """Mean loss over the rows."""
    eval_runtime: float
    """Seconds that the evaluation took."""
    eval_samples_per_second: float
    """Rows a second."""
    eval_steps_per_second: float
    """Batches a second."""
    cost: NotRequired[Cost]
    """What measuring took; of the base model on the evaluated split."""


class Scatter(TypedDict):
    """A figure over several draws of train, each of as many rows, drawn again from train's."""

    draws: int
    """How many."""
    lowest: float
    """The least figure, in its unit."""
    highest: float
    """The greatest."""
    standard_deviation: float
    """Over the draws (n - 1)."""


class BaselineFigures(Figures):
    """A cheap rival's figures on the evaluated split."""

    runtime: float
    """Seconds that fitting it and answering took."""
    cost: Cost
    """What fitting it and answering took."""
    scatter: NotRequired[Scatter]
    """How the headline scatters over draws of so few rows."""


class EpochFigures(Figures):
    """One evaluation during training."""

    epoch: float
    """Epochs trained until then."""
    training_loss: float
    """Mean training loss since the last evaluation."""
    eval_loss: float
    """Mean loss over the rows that choose the checkpoint."""


class Truncation(TypedDict):
    """What ``data.max_length`` cut off one split."""

    rows: int
    """Rows that were cut."""
    lost_tokens: int
    """Tokens that were cut off."""
    share: float
    """Share of the split's tokens that was cut off, from 0 to 1."""


class Selection(TypedDict):
    """How the checkpoint was chosen, and how much choosing flatters."""

    split: str
    """The split that chose the checkpoint."""
    rows: int
    """Rows of that split."""
    candidates: int
    """Evaluations that the best was chosen from; 1 where none was chosen."""
    is_evaluated: bool
    """Whether the run's figures are of that same split."""
    optimism_at_most: float
    """The most that choosing adds to the headline by chance alone, in the headline's unit."""
    base: ModelFigures
    """The base model on that split."""
    tuned: ModelFigures
    """The tuned model on that split."""


class PairedFigure(TypedDict):
    """Base and tuned model by one statistic, within the family of all that are told together."""

    base: float
    """The base model's figure."""
    tuned: float
    """The tuned model's figure."""
    difference: float
    """Tuned minus base, in the statistic's unit."""
    confidence_interval: Interval
    """[low, high] of the difference, in the statistic's unit."""
    p_value: float
    """Two-sided p-value, from 0 to 1."""
    p_value_holm: float
    """The same, adjusted over all statistics (Holm), from 0 to 1."""
    test: str
    """The test that gave ``p_value``."""
    resamples: NotRequired[int]
    """Resamples drawn, where the test is by resampling."""
    verdict: Verdict
    """After the adjustment."""


class PairedTest(TypedDict):
    """Two models on the same rows, by the kind's headline; ``<metric>_verdict`` is what the test of the metric alone
    says."""

    metric: str
    """The headline's name: its figures are ``eval_<metric>``."""
    n: int
    """Rows compared."""
    difference: float
    """Tuned minus the other, in the metric's unit."""
    confidence_interval: Interval
    """[low, high] of the difference, in the metric's unit."""
    confidence: float
    """Confidence of the interval and the verdict, from 0 to 1."""
    test: str
    """The test that gave ``p_value``: mcnemar-exact, permutation or permutation-by-group."""
    p_value: float
    """Two-sided p-value, from 0 to 1."""
    fixed: int | None
    """Rows that only the tuned model gets right; null where the metric is no share of rows."""
    broken: int | None
    """Rows that only the other gets right; null where the metric is no share of rows."""
    verdict: Verdict
    """The tuned model against the other, as the kind of answer confirms it."""
    smallest_significant_difference: float | None
    """The least difference that this test set could have shown; null where none, or where the metric is no share of
    rows."""
    detectable_difference: float | None
    """The least true difference that it would show four times in five; null as above."""
    paired: NotRequired[dict[str, PairedFigure]]
    """By further statistics, of a rival that names some: its figure is ``base``."""


class WithoutRows(TypedDict):
    """The figures again on the rows that are not known from train; ``rows`` alone where none is left."""

    rows: int
    """Rows left."""
    base: NotRequired[Figures]
    """The base model on them."""
    tuned: NotRequired[Figures]
    """The tuned model on them."""
    comparison: NotRequired[PairedTest]
    """Tuned against base on them."""


class DataChecks(TypedDict):
    """What is in the data that could make figures lie. Each check that the kind of answer has adds keys of its own."""

    splits: dict[str, dict[str, Any]]
    """By split: rows, words a text, empty and repeated texts in rows, what the truth is like."""
    shared_texts: dict[str, int]
    """Different texts that two splits share, by "one and other"."""
    warnings: list[str]
    """What a reader must know before any figure, one sentence each."""


class TrainingCost(TypedDict):
    """What training took."""

    train_runtime: float
    """Seconds of training."""
    train_samples_per_second: float
    """Training rows a second."""
    train_steps_per_second: float
    """Optimizer steps a second."""
    saves: int
    """Checkpoints saved."""
    save_seconds: float
    """Seconds that saving them took."""


class Resources(TrainingCost):
    """What training took, and what all of tuning did."""

    peak_memory_bytes: int
    """The most bytes that the process held: of the accelerator where there is one, else of resident memory."""
    tuning: TuningCost
    """What tuning took, evaluations and saves included."""


class TrunkCache(TypedDict):
    """The frozen blocks whose output was kept on disk."""

    frozen_blocks: int
    """Blocks run once."""
    dtype: str
    """What their output was kept as: fp32 or fp16."""
    disk_bytes: int
    """Bytes on disk."""
    dropout_in_trunk: bool
    """Whether dropout ran within them."""


class StartedFrom(TypedDict):
    """The adapter that the run went on from."""

    adapter: str
    """Its name as the recipe has it."""
    revision: NotRequired[str | None]
    """The hub's commit; null where it came from no hub."""
    fingerprint: str
    """Digest of its files."""


class CheckpointFigures(TypedDict):
    """What saving took."""

    saves: int
    """Checkpoints saved."""
    seconds: float
    """Seconds that saving took."""
    share_of_training: float
    """Share of the training time that saving took, from 0 to 1."""
    bytes: int
    """Bytes of the largest checkpoint."""


class Gate(TypedDict):
    """The published model, loaded as a user will, against the tuned model in memory."""

    rows: int
    """Rows answered by both."""
    of: str
    """What differs by ``largest_difference``, such as a probability."""
    largest_difference: float
    """The largest difference between their answers, in that unit; the published model answers in fp32."""
    precision: NotRequired[str]
    """In which the tuned model was measured, where that is not fp32."""
    largest_difference_as_measured: NotRequired[float]
    """The same where the published model answers in ``precision``, too, by which it is judged."""


class Resume(TypedDict):
    """One time that the run went on from a checkpoint."""

    step: int
    """Optimizer steps trained until then."""
    changed: dict[str, Any]
    """What of the environment had changed since the run began: key to [before, now]."""
    bit_exact: bool
    """Whether nothing had, so that the result is that of an uninterrupted run to the bit."""


class Reliability(TypedDict):
    """Saves, skipped steps, memory, resumes, and the check of what was published."""

    checkpoints: CheckpointFigures
    """What saving took."""
    skipped_steps: list[int]
    """Optimizer steps that were skipped because a gradient was not finite."""
    micro_batch_rows: int | None
    """Rows of a micro-batch after memory ran out; null where it never did."""
    resumes: list[Resume]
    """Each time that the run went on from a checkpoint."""
    gate: Gate
    """The published model against the tuned model in memory."""
    failed_observers: NotRequired[list[str]]
    """Those in report_to that failed and were told of nothing more."""


class DroppedSuspects(TypedDict):
    """The suspected label errors that were left out of train, and a cheap rival fitted with and without them."""

    looked_at: int
    """Train rows that were looked at."""
    dropped: int
    """Train rows that were left out."""
    baseline: str
    """The rival."""
    rows: int
    """Train rows that it is fitted on with them."""
    fitted_with: Figures
    """Its figures on the evaluated split, fitted with them."""
    fitted_without: Figures
    """Its figures there, fitted without them."""
    comparison: PairedTest
    """Without them against with them."""


class ReadRows(TypedDict):
    """The rows that a run read, and those that it left out."""

    rows: dict[str, int]
    """Rows of each split."""
    dropped_twin_rows: int
    """Train rows left out because their text also stands in a held-out split."""
    dropped_suspect_rows: int
    """Train rows left out because their label is suspected to be wrong."""
    dropped_empty_rows: dict[str, int]
    """By split, rows left out because their text is empty, or because there is nothing to compare."""
    skipped_bad_rows: dict[str, int]
    """By split, rows left out because they can't be read."""
    truncated_rows: dict[str, int]
    """By split, rows cut at ``data.max_length``."""
    truncation: dict[str, Truncation]
    """By split, what ``data.max_length`` cut off."""


class Measured(ReadRows):
    """What a run measured, before it is compared."""

    schema_version: Literal[1]
    """The version of this contract."""
    task: str
    """The recipe's task."""
    answer: str
    """The kind of answer, which says what ``eval_*`` figures there are."""
    evaluated_split: str
    """The split that every figure is of unless it says otherwise."""
    selection: Selection
    """How the checkpoint was chosen."""
    baselines: dict[str, BaselineFigures]
    """Each cheap rival on the evaluated split, the cheapest first."""
    baselines_left_out: dict[str, str]
    """Each cheap rival that failed, with the reason."""
    base: ModelFigures
    """The model before tuning, on the evaluated split."""
    tuned: ModelFigures
    """The tuned model, on the evaluated split."""
    epochs: list[EpochFigures]
    """Each evaluation during training, on the split that chose the checkpoint."""
    best_step: int
    """Optimizer steps after which the published weights stood."""
    trainable_parameters: int
    """Parameters that were trained."""
    total_parameters: int
    """Parameters of the whole model."""
    data_checks: DataChecks
    """What is in the data that could make figures lie."""
    resources: Resources
    """What training took."""
    trunk_cache: TrunkCache | None
    """The frozen blocks whose output was kept on disk; null without."""
    batch_dependence: str | None
    """Why an answer may depend on the rows beside it in its batch; null where it does not."""
    pad_token_id: int | None
    """The token that pads; null where there is none."""
    base_model_fingerprint: str
    """Digest of the base model's files."""
    started_from: StartedFrom | None
    """The adapter that the run went on from; null where it began with the base model."""


class Outcome(Measured):
    """The content of ``metrics.json`` of a run of Featherweight."""

    comparison: PairedTest
    """Tuned against base, by the headline."""
    paired: dict[str, PairedFigure]
    """Tuned against base by each statistic of the kind, as one family."""
    rungs: dict[str, PairedTest]
    """Tuned against each cheap rival, by the headline."""
    without_twins: WithoutRows
    """The figures on the rows that have no near duplicate in train."""
    without_shared_groups: NotRequired[WithoutRows]
    """The figures on the rows whose group does not stand in train; with ``data.group``."""
    suspects: NotRequired[DroppedSuspects]
    """With ``data.drop_suspects``: what leaving out the suspected label errors does to a cheap rival."""
    text_to_try: str
    """A row's text to ask the model about."""
    training_warnings: list[str]
    """What of the training and the tuned answers a reader must know, one sentence each."""
    headline: str
    """What the run showed, in words."""
    reliability: Reliability
    """Saves, skipped steps, memory, resumes, and the check of what was published."""

    label_shares: NotRequired[dict[str, dict[str, float]]]
    """Where answers are labels: by split, each label's share of the rows, from 0 to 1."""
    labels: NotRequired[dict[str, dict[str, Any]]]
    """Where a row has any number of labels, by model: precision, recall and F1 from 0 to 1, and support in rows, of
    each."""
    thresholds: NotRequired[dict[str, dict[str, Any]]]
    """By model: from which probability on each label is answered, and what that changes on rows that it was not found
    on."""
    co_occurrence: NotRequired[dict[str, Any]]
    """Which labels go together, in truth and in both models' answers, in rows."""
    numbers: NotRequired[dict[str, dict[str, float]]]
    """Where answers are numbers: by split, mean, standard deviation, least, median and greatest, in the column's
    unit."""
    completions: NotRequired[dict[str, dict[str, float]]]
    """Where answers are text: by split, mean, median, 95th percentile and longest of the completions, in
    characters."""
    pairs: NotRequired[dict[str, dict[str, float]]]
    """Where answers are compared: by split, mean lengths in characters of the chosen and of the rejected answers, and
    the shares of the pairs in which the chosen one is the longer and the shorter."""
    preferred_by: NotRequired[dict[str, str]]
    """Where answers are compared: what tells what each model prefers, ``rewards``, or ``likelihood`` (a token) of a
    model whose rewards are all 0."""
    written: NotRequired[dict[str, Any]]
    """Where answers were written (``evaluation.generate``): ``rows`` that were answered; ``models``, the figures of
    each model and rival; ``comparison`` of tuned against base, with ``withheld`` where its ``verdict`` says less than
    the test does, and why; ``paired`` by every statistic; ``rungs`` against each rival; ``truth_in_train``, the share
    of the rows' own replies that stand in train; ``examples``."""
    heeding: NotRequired[dict[str, Any]]
    """Where answers are text: the tuned model's figures of ``rows`` replies behind their ``own`` prompt and behind an
    ``other`` row's, and both in pairs."""
    forgetting: NotRequired[dict[str, Any]]
    """Where answers are text: ``texts`` beside what the model was tuned for, figures of ``base`` and ``tuned`` on them,
    and both in pairs."""
    entity_shares: NotRequired[dict[str, dict[str, float]]]
    """Where answers are entities: by split, each type's share of the entities, from 0 to 1."""
    tag_shares: NotRequired[dict[str, dict[str, float]]]
    """Where answers are a tag a word: by split, each tag's share of the words, from 0 to 1."""
    where: NotRequired[dict[str, Any]]
    """Where tuning helped: ``slices`` of the rows with the headline of both models, ``confusion`` of labels or tags in
    rows."""
    calibration: NotRequired[dict[str, dict[str, Any]]]
    """By model: whether probabilities mean what they say, before and after the fitted temperature."""
    decision: NotRequired[dict[str, dict[str, Any]]]
    """Where a recipe asks for a decision threshold, by model: what chose it, the threshold, a probability from 0 to 1
    or null where none does what is wanted, and what it changes on rows that did not choose it."""
    residuals: NotRequired[dict[str, dict[str, Any]]]
    """By model: answer minus truth, by answer and in quantiles, and fitted intervals, in the column's unit."""
    entity_errors: NotRequired[dict[str, dict[str, Any]]]
    """By model: entities that are right, and how many of each error."""
    entities: NotRequired[dict[str, dict[str, Any]]]
    """By model: precision, recall and F1 from 0 to 1, and support in entities, of each type."""
    examples: NotRequired[dict[str, list[dict[str, Any]]]]
    """Rows that the tuned model fixed or broke, and its worst mistakes, with both models' answers."""
