"""``featherweight.json``, the file beside an adapter that says what it answers: read as what somebody else wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featherweight.errors import ModelError
from featherweight.registry import TASKS
from featherweight.runs import FACTS
from featherweight.sources.models import read_json


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)  # keys of later versions are let be


class _BaseModelFacts(_Read):
    name: str | None = None
    revision: str | None = None
    fingerprint: str | None = None


class _Threshold(_Read):
    wanted_error_rate: float
    confidence: float | None = None


class _Facts(_Read):
    task: str = "sequence-classification"
    labels: list[str] | None = Field(None, min_length=1, max_length=1_000_000)
    max_length: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    thresholds: list[_Threshold] = []
    pad_token_id: Annotated[int, Field(ge=0)] | None = None
    base_model: _BaseModelFacts = _BaseModelFacts()


def read_facts(folder: Path) -> dict[str, Any]:
    """What the folder's ``featherweight.json`` says, without the keys that it leaves out; empty where it has none.

    Raises:
        ModelError: the file and the key that is wrong.
    """
    path = folder / FACTS
    if not path.is_file():
        return {}
    try:
        known = _Facts.model_validate(read_json(path))
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        key = ".".join(map(str, finding["loc"]))
        raise ModelError(f"{path}: {key}: {finding['msg']}") from None
    if known.task not in set(TASKS):
        raise ModelError(f"{path}: task: {known.task!r} is none of {', '.join(sorted(TASKS))}")
    if known.labels is not None and len(set(known.labels)) < len(known.labels):
        raise ModelError(f"{path}: labels: one stands there twice")
    return known.model_dump(exclude_none=True)
