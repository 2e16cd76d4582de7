"""A fresh head that does not begin at random: its output layer is a linear probe, held close to nothing.

With few rows a class most of what tuning does first is to find out which features speak for which label. A logistic
regression on frozen features knows that at once (linear probing before fine-tuning: Kumar et al., "Fine-Tuning can
Distort Pretrained Features", 2022). One that is fitted well leaves the adapters nothing to learn from, for it is right
of all rows of train; so it is regularised until it points the right way and is sure of nothing. See docs/defaults.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.evidence.baselines import Probe
from featherweight.process.signals import Stop
from featherweight.records.rows import numbers_of
from featherweight.registry import BASELINES
from featherweight.report.console import Console
from featherweight.tasks import heads
from featherweight.workflow.preparing import Prepared
from featherweight.workflow.rungs import frozen_features

STRENGTH = 0.001  # of the regularisation's inverse; 0.1 is what the ladder's probe has
_NOTHING = 1e-4  # a logit's range over all rows


def begin_at_probe(prepared: Prepared, console: Console, stop: Stop) -> None:
    """Give the output layer of the head the weights of a linear probe, where the recipe begins there."""
    import torch

    if prepared.recipe.model.head != "probe" or prepared.start is not None:
        return
    model = prepared.model
    name = heads.output_layer(model, prepared.head, prepared.task.answer.width)
    if name is None:
        prepared.reasons["model.head"] = "drawn at random: no linear layer of this head gives the logits"
        return
    layer = model.get_submodule(name)
    has_bias = layer.bias is not None
    with stop.at_once("fitting the head"):
        console.begin("fitting the head")
        key = ("probe", prepared.measured_as, name)
        fitted = prepared.once.made(key, lambda: _fitted(prepared, name, has_bias, console, stop))
    if fitted is None:
        prepared.reasons["model.head"] = "drawn at random: a linear probe finds nothing in what this head reads"
        return
    weight, bias = fitted
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))


def _fitted(prepared: Prepared, name: str, has_bias: bool, console: Console, stop: Stop) -> tuple[Any, Any] | None:
    """Weight and bias of the layer ``name``; None where they would be nothing, for a head of zeros gives no adapter a
    gradient."""
    kind, train = prepared.task.answer, prepared.examples["train"]
    probe: type[Probe] = BASELINES[kind.probe]
    rows = probe.rows(train, kind)
    read = frozen_features(prepared, [name], "train", rows, console, stop)
    weight, bias = probe.layer(read, train.truth[rows], kind, STRENGTH, has_bias)
    return (weight, bias) if np.ptp(numbers_of(read) @ weight.T, axis=0).max() >= _NOTHING else None
