"""The training loop.

It owns its few hundred lines because resuming to the same bytes and choosing batches exactly are what the project is
for; the meaning of every setting is ``TrainingArguments``', and a test holds it to ``transformers.Trainer`` step by
step.

One place differs on purpose: with gradient accumulation the loss of a step is the mean over all its items (rows, or
what else the loss is about), so that 4 batches of 8 are 1 batch of 32. (The Trainer, for models whose ``forward`` takes
``**kwargs``, sums the means of the micro-batches, see ``loss_is_scaled_for_ga``.)
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine import Lowered, Observer, StopRequested, Task
from featherweight.engine.fleet import Said
from featherweight.engine.memory import is_out_of_memory
from featherweight.engine.running.batches import targets_of
from featherweight.engine.running.execution import Execution
from featherweight.engine.training import randomness
from featherweight.engine.training.checkpoints import Checkpoint, Kept
from featherweight.engine.training.guard import Guard
from featherweight.engine.training.learning_rate import LearningRate
from featherweight.engine.training.loss_scale import LossScale
from featherweight.engine.training.optimizer import build_optimizer
from featherweight.engine.training.schedule import Schedule, dealt
from featherweight.engine.training.state import Progress, best_metric_name, give_back, greater_is_better, taken
from featherweight.errors import Interrupted, OutOfMemory
from featherweight.recipe import TrainingSection
from featherweight.records.answers import Evaluation
from featherweight.records.rows import Encoding
from featherweight.records.training import EpochRecord, Keeper, OwnRate, TrainingResult


@dataclass(frozen=True)
class Means:
    """What training works with.

    Attributes:
        accelerator: device and precision.
        execution: runs the model on rows.
        checkpoints: where to save.
        keeper: what the method keeps in step with training.
    """

    accelerator: Any
    execution: Execution
    checkpoints: Kept
    keeper: Keeper | None = None


@dataclass(frozen=True)
class Hooks:
    """What training calls on its way.

    Attributes:
        evaluate: measures the model on the validation split, in whatever state it is.
        observer: is told of every logged step, evaluation and checkpoint.
        stop: is asked between steps whether to stop.
    """

    evaluate: Callable[[], Evaluation]
    observer: Observer
    stop: StopRequested = lambda: False


class Trainer:
    """Trains the parameters of ``model`` that require gradients.

    Args:
        model: what a method made ready; moved to the device here.
        task: gives the loss, and how its targets are weighted where they are.
        train: rows to train on.
        settings: with ``learning_rate`` and ``metric_for_best_model`` set.
        own_rates: of parameters that do not train at ``learning_rate``.
    """

    def __init__(
        self,
        model: Any,
        task: Task | Lowered,
        train: Encoding,
        *,
        settings: TrainingSection,
        means: Means,
        hooks: Hooks,
        own_rates: Sequence[OwnRate] = (),
    ) -> None:
        self.settings = settings
        self.task = task
        self.encoding = train
        self.means = means
        self.fleet = means.execution.fleet
        self.hooks = hooks
        self.schedule = Schedule(
            train.lengths,
            settings.per_device_train_batch_size * means.execution.fleet.size,
            settings.gradient_accumulation_steps,
            settings.seed,
            settings.train_sampling_strategy,
        )
        epochs_steps = math.ceil(settings.num_train_epochs * self.schedule.steps_per_epoch)
        self.total_steps = settings.max_steps if settings.max_steps > 0 else epochs_steps
        self.keeper = means.keeper
        if self.keeper is not None:
            self.keeper.begin(self.total_steps)
        optimizer = build_optimizer(model, settings, own_rates)
        greater = greater_is_better(settings, task.answer)
        self.learning_rate = LearningRate(optimizer, settings, self.total_steps, greater)
        # For its precision alone: what several processes have to tell each other, they do by the fleet.
        self.model = means.accelerator.prepare_model(model, evaluation_mode=True)
        self.optimizer = means.accelerator.prepare_optimizer(optimizer)
        self.trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.progress = Progress()
        self.guard = Guard(settings)
        self.scale = LossScale(means.accelerator.scaler)
        self._saved: tuple[int, int] | None = None
        self._said: Said | None = None  # by all processes, of the last step
        self._logged_losses: list[float] = []
        self._logged_rows = 0
        self._logged_at = time.perf_counter()

    def fit(self, resume: Checkpoint | None = None) -> TrainingResult:
        """Train to the last step, evaluating and saving on the way, and leave the best weights in the model.

        Raises:
            DivergedError: the loss is not finite any more, or has exploded.
            ResourceError: a checkpoint can't be written.
            OutOfMemory: not even one row at a time fits into memory.
            Interrupted: ``stop`` said so; a checkpoint was saved first.
        """
        if resume is not None:
            self._restore(resume)
        else:
            randomness.part(self.settings.seed, self.fleet.rank)
        started = time.perf_counter() - self.progress.seconds
        self.model.train()
        while True:
            self.progress.seconds = time.perf_counter() - started
            if self._evaluation_is_due():
                self._evaluate()
            elif self._save_is_due():
                self._save()
            if self.progress.step >= self.total_steps or self._has_stalled():
                break
            if self.fleet.stops(self.hooks.stop(), self._said):
                self._save()
                raise Interrupted(f"stopped after step {self.progress.step} of {self.total_steps}")
            self._train_step()
        self.progress.seconds = time.perf_counter() - started
        best = self.progress.best_step
        if self.settings.load_best_model_at_end and best is not None and best != self.progress.step:
            self._put_back(self.means.checkpoints.load(best))
        self.model.eval()
        return self._result()

    def tokens_of_step(self, step: int) -> tuple[int, int]:
        """Real tokens of an optimizer step, and those of its batches were they padded."""
        lengths = [self.schedule.lengths[rows] for rows in self.schedule.step_batches(step)]
        return sum(int(one.sum()) for one in lengths), sum(int(one.max()) * len(one) for one in lengths)

    def evaluations_within(self, steps: int) -> int:
        """How often the model is evaluated in training of so many steps."""
        return -(-steps // self._interval(self.settings.eval_strategy, self.settings.eval_steps))

    def rehearse(self, step: int) -> None:
        """Train on one step's rows as :meth:`fit` would, out of order; for a forecast, after which the trainer goes."""
        self.keeper = None  # what a method keeps in step is for steps in their order
        self.model.train()
        self.progress.step = step
        self._train_step()
        self._logged_losses, self._logged_rows = [], 0

    def _train_step(self) -> None:
        """One optimizer step: forward and backward for each micro-batch, clip, update where the guard admits it."""
        batches = self.schedule.step_batches(self.progress.step)
        while (said := self._added_up(batches)).out_of_memory:
            self._halve(batches)
        loss, self._said = said.loss, said
        norm = self._clip(batches)
        rate = self.learning_rate.now[0]
        admitted = self.guard.admits(self.progress.step + 1, loss, norm, self.scale)
        if admitted:
            self.optimizer.step()
            self.learning_rate.after_step()
            if self.keeper is not None:
                self.keeper.after_step(self.progress.step + 1)
        if math.isfinite(loss):  # it was measured, whether or not its gradient can be applied
            self._logged_losses.append(loss)
        self.optimizer.zero_grad()
        self.progress.step += 1
        self._logged_rows += sum(map(len, batches))
        if not admitted:
            event = {"event": "skipped_step", "step": self.progress.step, "loss": repr(loss), "norm": repr(norm)}
            self.hooks.observer(event | {"loss_scale": self.scale.value})
        if self._logged_losses:
            self.hooks.observer({"event": "stepping", **self._pace()})
        if self.progress.step % self.settings.logging_steps == 0 or self.progress.step == self.total_steps:
            self._log(rate, norm)

    def _added_up(self, batches: list[NDArray[np.int64]]) -> Said:
        """Add up the gradient of a step, each process that of its rows, and give what all say of the step."""
        lengths, fleet = self.schedule.lengths, self.fleet
        own = [dealt(rows, lengths, fleet.rank, fleet.size) for rows in batches]
        items = self.encoding.items(np.concatenate(batches))
        loss = self._gradients(own, max(items, 1))  # rows may have none
        if loss is None:
            self.optimizer.zero_grad()
        mine = Said(loss or 0.0, self.encoding.items(np.concatenate(own)), loss is None, self.hooks.stop())
        said = fleet.add_up([*self.trained.values()], mine)
        if said.items != items:
            raise RuntimeError(f"step {self.progress.step + 1} has {items} items, and the processes have {said.items}")
        return said

    def _gradients(self, batches: list[NDArray[np.int64]], items: int) -> float | None:
        """Add up the gradient of this process's rows, and give their loss over ``items``, those of the whole step; None
        where memory ran out."""
        device = self.means.accelerator.device
        self.means.execution.start(self.progress.step, self.fleet.rank)
        parts = [
            part
            for one in batches if len(one)
            for part in np.array_split(one, min(self.progress.micro_batch_parts, len(one)))
        ]  # fmt: skip
        step_loss = torch.zeros((), device=device)
        try:
            for index, indices in enumerate(parts):
                last = index == len(parts) - 1
                with contextlib.nullcontext() if last else self.means.accelerator.no_sync(self.model):
                    with self.means.accelerator.autocast():
                        outputs = self.means.execution.outputs(self.model, self.encoding, indices)
                    loss = self.task.loss(outputs, targets_of(self.encoding, indices, device)) / items
                    if last and self.keeper is not None and self.fleet.rank == 0:  # of a step there is one
                        loss = loss + self.keeper.penalty()
                    self.means.accelerator.backward(loss)
                step_loss += loss.detach()
            return float(step_loss)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _halve(self, batches: list[NDArray[np.int64]]) -> None:
        """From now on cut micro-batches into twice as many parts; the items of a step, and so its mean, stay."""
        self.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        largest = max(-(-len(one) // self.fleet.size) for one in batches)
        if -(-largest // self.progress.micro_batch_parts) == 1:
            raise OutOfMemory(
                "out of memory with one row at a time (training.per_device_train_batch_size is "
                f"{self.settings.per_device_train_batch_size}, cut down to 1); lower data.max_length"
            )
        self.progress.micro_batch_parts *= 2
        rows = -(-largest // self.progress.micro_batch_parts)
        self.hooks.observer({"event": "out_of_memory", "step": self.progress.step, "micro_batch_rows": rows})

    def _clip(self, batches: list[NDArray[np.int64]]) -> float:
        """Clip the gradient where that is asked for, and give its norm before.

        Where targets are weighted it is clipped by the mean weight of the step's: else every step that holds a heavy
        row would be cut back to the size of those that don't, and the weights undone.
        """
        self.scale.unscale(self.optimizer)
        gradients = [value.grad for value in self.trained.values() if value.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        most = self.settings.max_grad_norm
        if isinstance(self.task, Lowered) and self.task.weight is not None:
            most *= self.task.weight(self.encoding.targets[np.concatenate(batches)])
        if most > 0:
            torch.nn.utils.clip_grads_with_norm_(self.trained.values(), most, norm)
        return float(norm)

    def _pace(self) -> dict[str, Any]:
        """Where training stands, with the mean loss and the speed since the last logged step."""
        return {
            "step": self.progress.step,
            "steps": self.total_steps,
            "epoch": self.progress.step / self.schedule.steps_per_epoch,
            "loss": sum(self._logged_losses) / len(self._logged_losses),
            "samples_per_second": self._logged_rows / (time.perf_counter() - self._logged_at),
        }

    def _log(self, rate: float | None = None, norm: float | None = None) -> None:
        """Settle the losses since the last call, and report where there is a rate."""
        losses = self._logged_losses
        self.progress.loss_sum += sum(losses)
        self.progress.loss_steps += len(losses)
        if rate is not None and losses:
            finite = norm if norm is not None and math.isfinite(norm) else None
            self.hooks.observer({"event": "step", **self._pace(), "learning_rate": rate, "grad_norm": finite})
        self._logged_losses, self._logged_rows, self._logged_at = [], 0, time.perf_counter()

    def _interval(self, strategy: str, every: int) -> int:
        return self.schedule.steps_per_epoch if strategy == "epoch" else every

    def _is_point(self, strategy: str, every: int) -> bool:
        step = self.progress.step
        return step > 0 and (step == self.total_steps or step % self._interval(strategy, every) == 0)

    def _evaluation_is_due(self) -> bool:
        return self.progress.evaluated_step != self.progress.step and self._is_point(
            self.settings.eval_strategy, self.settings.eval_steps
        )

    def _save_is_due(self) -> bool:
        return self.progress.evaluated_step != self.progress.step and self._is_point(
            self.settings.save_strategy, self.settings.save_steps
        )

    def _evaluate(self) -> None:
        """Measure on validation, remember whether it is the best so far, and save.

        Raises:
            DivergedError: the answers are not finite; the checkpoint before stays the last.
        """
        self._log()
        try:
            metrics = self.fleet.share(self.hooks.evaluate().metrics)
        except Interrupted:
            self._save()  # before the evaluation, which the resumed run makes first
            raise
        progress = self.progress
        record = EpochRecord(
            epoch=progress.step / self.schedule.steps_per_epoch,
            step=progress.step,
            training_loss=progress.loss_sum / max(progress.loss_steps, 1),
            metrics=metrics,
        )
        progress.note(record, self.settings, self.task.answer)
        self.learning_rate.after_evaluation(metrics[best_metric_name(self.settings)])
        found = {**progress.epochs[-1], "is_best": progress.best_step == progress.step}
        self.hooks.observer({"event": "evaluation", "answer": self.task.answer.name, **found})
        self._save()
        self._logged_at = time.perf_counter()

    def _has_stalled(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and self.progress.stalled >= patience

    def _save(self) -> None:
        """Write a checkpoint, unless the last one says the same.

        Raises:
            DivergedError: something in it is not finite; the checkpoint before stays the last.
        """
        point = (self.progress.step, self.progress.evaluated_step)
        if point == self._saved:
            return
        self._log()
        started = time.perf_counter()
        tensors, numbers = taken(self.trained, self.optimizer)
        tensors |= randomness.of_all(self.fleet)
        self.guard.require_finite(self.progress.step, (tensors["trainable"], tensors["optimizer"]))
        state = {"scheduler": self.learning_rate.state(), "guard": self.guard.state(), "scale": self.scale.state()}
        state |= {"optimizer": numbers} if numbers else {}
        if self.keeper is not None:
            tensors["keeper"], state["keeper"] = self.keeper.state()
        checkpoint = Checkpoint(self.progress.step, tensors, asdict(self.progress) | state)
        self.means.checkpoints.save(checkpoint, self.progress.best_step)
        self._saved = point
        seconds = time.perf_counter() - started
        self.progress.saves += 1
        self.progress.save_seconds += seconds
        self.hooks.observer(
            {"event": "checkpoint", "step": self.progress.step, "seconds": seconds, "bytes": checkpoint.bytes}
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = dict(checkpoint.state)
        self.guard.load_state(state.pop("guard"))
        self.scale.load_state(state.pop("scale", {}))
        self.learning_rate.load_state(state.pop("scheduler"))
        self._put_back(checkpoint)
        state.pop("keeper", None)
        remembered = {**checkpoint.tensors["optimizer"], **state.pop("optimizer", {})}
        give_back(remembered, self.optimizer, self.learning_rate.now)
        randomness.restore(checkpoint.tensors[randomness.group_of(self.fleet.rank)])
        self.progress = Progress(**state)
        self.progress.saves += 1  # its own, which it can't count
        self._saved = (checkpoint.step, self.progress.evaluated_step)

    def _put_back(self, checkpoint: Checkpoint) -> None:
        """Give what trains, and what is kept in step with it, the state that it had."""
        self.put_back(checkpoint.tensors["trainable"])
        if self.keeper is not None:
            self.keeper.load_state(checkpoint.tensors.get("keeper", {}), checkpoint.state["keeper"])

    @torch.no_grad()
    def put_back(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Give what trains the values that it had, by name."""
        for name, parameter in self.trained.items():
            parameter.copy_(tensors[name])

    def _result(self) -> TrainingResult:
        progress = self.progress
        return TrainingResult(
            epochs=[EpochRecord(**record) for record in progress.epochs],
            best_step=progress.best_step or progress.step,
            steps=progress.step,
            metrics={
                "train_runtime": progress.seconds,
                "train_samples_per_second": self._rows_seen() / progress.seconds,
                "train_steps_per_second": progress.step / progress.seconds,
                "saves": progress.saves,
                "save_seconds": progress.save_seconds,
            },
        )

    def _rows_seen(self) -> int:
        epochs, steps = divmod(self.progress.step, self.schedule.steps_per_epoch)
        return epochs * self.schedule.rows + steps * self.schedule.batch_size * self.schedule.accumulation
