"""The ``[training]`` section of tasks that have keys of their own there; apart from the tasks, as ``columns`` is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from featherweight.answers.pair_losses import LossType
from featherweight.recipe import TrainingSection
from featherweight.recipe.values import PositiveFloat


class PreferenceTraining(TrainingSection):
    """``DPOConfig``'s names and meanings of TRL, beside those of ``TrainingArguments``."""

    loss_type: LossType = Field(
        "sigmoid",
        description="what is lowered for each pair: sigmoid (DPO's), hinge, ipo, robust; orpo, without a reference",
    )
    beta: PositiveFloat = Field(
        0.1, description="how strongly the model is held to what it was; of ipo the paper's tau, of orpo its lambda"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="of loss_type = 'robust': share of the pairs whose answers stand the wrong way round"
    )

    @model_validator(mode="after")
    def _goes_with_the_loss(self) -> PreferenceTraining:
        if self.loss is not None:
            raise ValueError("'loss' is called 'loss_type' for pairs of answers")
        if self.label_smoothing and self.loss_type != "robust":
            raise ValueError("'label_smoothing' is for loss_type = 'robust'")
        return self
