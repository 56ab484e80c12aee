"""The temperature that makes scores mean what they say: fitted on validation, put into the last layer's weights."""

from __future__ import annotations

import math

import numpy as np
import torch

from textclf.labels import LabelSet
from textclf.model.scoring import score
from textclf.training.workbench import Workbench

COLDEST, HOTTEST = 0.05, 20.0
CHECKED = 16
"""Texts on which the new logits are compared with what they should be."""


def fit_temperature(targets: np.ndarray, logits_NC: np.ndarray, label_set: LabelSet) -> float:
    """What to divide logits by, so that the loss on these rows is least (Guo et al. 2017), from 0.05 to 20.

    Targets are smoothed by 1 in rows + 2, as in Platt 1999: of a few rows that are all answered rightly nobody learns
    that the model is always right.
    """
    from scipy.optimize import minimize_scalar

    logits_NC = logits_NC.astype(np.float64)
    doubt = 1 / (len(targets) + 2)

    def loss(log_temperature: float) -> float:
        scaled_NC = logits_NC / math.exp(log_temperature)
        if label_set.multi:
            wanted_NC = targets * (1 - doubt) + doubt / 2
            return float((np.logaddexp(0, scaled_NC) - wanted_NC * scaled_NC).mean())
        norm_N = np.logaddexp.reduce(scaled_NC, axis=1)
        of_target_N = scaled_NC[np.arange(len(targets)), targets]
        return float((norm_N - (1 - doubt) * of_target_N - doubt * scaled_NC.mean(axis=1)).mean())

    found = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return math.exp(float(found.x))


def cool(bench: Workbench, temperature: float) -> bool:
    """Divide the classifier's logits by the temperature, in its weights: every tool then gives the same scores.

    Returns False, and leaves the weights as they were, where the logits are not what a linear layer gives.
    """
    encoded, classifier = bench.encoded["validation"], bench.classifier
    last = classifier.output_layer
    if last is None:  # a head that is code, and ends in something else
        return False
    checked = encoded.take(np.arange(min(CHECKED, len(encoded))))
    before = {name: tensor.clone() for name, tensor in last.state_dict().items()}
    wanted_NC = score(classifier, checked) / temperature
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    if np.allclose(score(classifier, checked), wanted_NC, rtol=0.02, atol=0.02 * float(np.abs(wanted_NC).max())):
        return True
    last.load_state_dict(before)
    return False
