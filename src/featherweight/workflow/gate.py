"""The last look before anything is published: what was written is read back and must be what was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DivergedError, ModelError
from featherweight.records.answers import Answers
from featherweight.records.outcome import Gate
from featherweight.records.rows import Encoding, equal, numbers_of
from featherweight.tasks.heads import within

if TYPE_CHECKING:
    import torch

    from featherweight.engine.running.execution import Execution
    from featherweight.inference.loading import LoadedModel

ROWS = 64
_EXACT, _ROUNDED = 1e-3, 5e-2  # of a probability, in fp32, and with products or the trunk's cache in 16 bits


def fingerprints(model: Any) -> dict[str, str]:
    """SHA-256 of each parameter that trains, to see later whether training changed it; of any dtype."""
    import torch

    trained = [(name, value.detach()) for name, value in model.named_parameters() if value.requires_grad]
    as_bytes = {name: value.cpu().reshape(-1).view(torch.uint8).numpy() for name, value in trained}  # NumPy has no bf16
    return {name: hashlib.sha256(value).hexdigest() for name, value in as_bytes.items()}


def require_readable(
    folder: Path, model: Any, bare: Callable[[], Any], head: Sequence[str], converted: bool = False
) -> None:
    """Refuse to train what could not be read back afterwards.

    Args:
        folder: ``model``, as it is before the first step, written as it would be published.
        bare: gives the base model without its weights, for an adapter to be put on.
        head: dotted names of the head's modules.
        converted: an adapter is told otherwise there than it is trained, so it is held to its own file.

    Raises:
        ModelError: it can't be loaded, or what is loaded is not what was written.
    """
    from featherweight.engine.training import randomness
    from featherweight.inference import loading
    from featherweight.methods.peft import adapters

    before = randomness.capture()
    try:
        if (folder / adapters.CONFIG).is_file():
            # Initial values may be made from the base model's weights, and the file's take their place.
            back = adapters.load(bare(), folder, head, init_lora_weights=False)
            written = adapters.stored(folder) if converted else adapters.state_of(model)
            found = adapters.state_of(back)
        else:
            back = loading.load(str(folder)).model
            written, found = model.state_dict(), back.state_dict()
        wrong = [name for name in {*written, *found} if not _equal(written.get(name), found.get(name))]
        wrong += [name for name, scale in _scales(model).items() if _scales(back).get(name) != scale]
        if wrong:
            raise ModelError(f"{min(wrong)!r} comes back other than it was written")
    except ModelError as error:
        reason = str(error).removeprefix(f"{folder}: ")
        raise ModelError(
            f"method: what would be published could not be read back, so nothing is trained: {reason}; choose other "
            "options, or another method.name"
        ) from error
    finally:
        randomness.restore(before)


def require_gradients(model: Any, execution: Execution, head: Sequence[str]) -> None:
    """Refuse to train where nothing beside the head would move, however long.

    Raises:
        ModelError: no gradient reaches what is tuned.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    inner = [value for name, value in named if not within(name, head)]
    was_training = model.training
    model.eval()  # so that no dropout is drawn
    try:
        if (logits := execution.trial_logits(model)).requires_grad:
            logits.sum().backward()  # type: ignore[no-untyped-call]
        reached = not inner or any(value.grad is not None for value in inner)
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
    if not reached:
        kind = model.config.model_type
        raise ModelError(
            f"method: {kind}'s own code passes no gradient to what is tuned while its embeddings are frozen; "
            'set method.name to "full" or "linear-probe"'
        )


def _scales(model: Any) -> dict[str, dict[str, float]]:
    """By how much each adapter's layer multiplies; the file of weights does not say."""
    found = ((name, getattr(module, "scaling", None)) for name, module in model.named_modules())
    return {name: dict(scaling) for name, scaling in found if isinstance(scaling, dict)}


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape and bool((one == other.to(one)).all())


def require_effect(model: Any, before: Mapping[str, str], head: Sequence[str]) -> None:
    """Refuse a model that training left as it was, in all that it tunes or in all but the head.

    Args:
        before: its :func:`fingerprints` as the method made it.
        head: dotted names of the head's modules.

    Raises:
        DivergedError: nothing changed.
    """
    after = fingerprints(model)
    inner = [name for name in after if not within(name, head)]
    if not any(after[name] != before[name] for name in inner or after):
        what = "beside the head " if len(inner) < len(after) and inner else ""
        raise DivergedError(
            f"training changed none of the {len(inner or after)} tensors {what}that it tunes, so nothing is published; "
            "raise training.learning_rate or the number of steps"
        )


def require_other_answers(base: Answers, tuned: Answers) -> None:
    """Raises DivergedError where tuning changed no answer at all, or made one that is not finite."""
    if not all(np.isfinite(numbers_of(column)).all() for column in tuned.columns.values()):
        raise DivergedError("the tuned model's answers are not finite, so nothing is published")
    if all(equal(base[name], column) for name, column in tuned.columns.items()):
        raise DivergedError("the tuned model answers exactly as the base model does, so nothing is published")


def require_same_answers(
    folder: Path, encoding: Encoding, kept: Answers, precision: str, half_trunk: bool, accelerator: Any | None
) -> Gate:
    """Load what was written as a user will, and hold its answers to those of the model in memory.

    Args:
        folder: the artefact, complete but not yet published.
        encoding: the rows that were measured on; the first :data:`ROWS` are answered again.
        kept: answers of the model in memory, to all rows.
        precision: of the products that they were found by, and so of those that they are held to.
        half_trunk: they were found by a cache in fp16, which what was written does without.
        accelerator: whose device and precision the model had; None where it does not fit the device.

    Returns:
        The rows answered and the largest difference, for the report. Where ``precision`` is not fp32 there are two: of
        what was written as it is loaded, in fp32, which says what the precision does to this model; and in
        ``precision``, by which alone it is judged.

    Raises:
        DivergedError: a number in a file is not finite, or the answers differ.
    """
    from featherweight.inference.loading import load

    _require_finite(folder)
    rows = np.arange(min(ROWS, len(encoding)))
    try:
        loaded = load(str(folder))
        found = _answers(loaded, encoding, rows, precision, accelerator)
    except ModelError as error:
        raise DivergedError(f"what was written can't be loaded, so nothing is published: {error}") from error
    apart = {each: loaded.task.answer.likeness(kept.select(rows), answers) for each, answers in found.items()}
    of, judged = apart[precision].of, apart[precision].largest_difference
    if not judged <= (_EXACT if precision == "fp32" and not half_trunk else _ROUNDED):
        raise DivergedError(
            f"what was written answers differently from the tuned model in memory (a {of} by {judged:.3g}), so "
            "nothing is published"
        )
    gate: Gate = {"rows": len(rows), "of": of, "largest_difference": apart["fp32"].largest_difference}
    as_measured: Gate = {**gate, "precision": precision, "largest_difference_as_measured": judged}
    return gate if precision == "fp32" else as_measured


def _answers(
    loaded: LoadedModel, encoding: Encoding, rows: NDArray[np.int64], precision: str, accelerator: Any | None
) -> dict[str, Answers]:
    """In fp32, and in ``precision`` where that is another."""
    from featherweight.engine.running.evaluate import answers
    from featherweight.inference.loading import execution_of

    model, kind = loaded.model, loaded.task.answer
    if accelerator is not None:
        model.to(accelerator.device)
    execution = execution_of(loaded)
    found = {"fp32": answers(model, kind, encoding, rows, execution=execution)}
    if precision != "fp32":
        execution.multiply_in(precision)
        if accelerator is not None:
            model = accelerator.prepare_model(model, evaluation_mode=True)
        found[precision] = answers(model, kind, encoding, rows, execution=execution)
    return found


def _require_finite(folder: Path) -> None:
    import torch
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                value = file.get_tensor(name)
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise DivergedError(f"{name} is not finite in what was written, so nothing is published")
