"""The linear probe: logistic regression on what the pretrained backbone says already.

It is a baseline that costs one forward pass, and where the head starts: from a fresh head, the first steps would
pull the backbone about for nothing (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features").
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

CS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Inverse strengths of the penalty that cross-validation chooses from, for features of unit variance."""
FOLDS = 3
MAX_ROWS = 20_000
"""Training texts that a probe learns from, at most: more change little."""
WORK = 2e9
"""Rows x features x labels that a probe may take at most; above, rows are left out."""
LEAST_ROWS_PER_LABEL = 2
"""Rows per label, on average, under which a probe is not worth its time."""


@dataclass(frozen=True)
class LinearProbe:
    """weight: (num_labels, width) float32. bias: (num_labels,) float32, zero where the layer has none. c: as chosen.

    right: (rows,) bool, which of the texts it learnt from were labelled rightly by a probe that had not seen them.
    """

    weight: np.ndarray
    bias: np.ndarray
    c: float
    right: np.ndarray

    def start(self, layer: nn.Linear) -> None:
        """Make it the layer's weights."""
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weight))
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(self.bias))


def rows_to_learn_from(targets_N: np.ndarray, *, width: int, num_labels: int, seed: int) -> np.ndarray | None:
    """Which training rows a probe takes, sorted; None where they could not tell the labels apart."""
    limit = min(len(targets_N), MAX_ROWS, int(WORK / (width * num_labels)))
    labels = len(np.unique(targets_N))
    if labels < 2 or limit < LEAST_ROWS_PER_LABEL * labels:
        return None
    return np.sort(np.random.default_rng([seed, 1]).permutation(len(targets_N))[:limit])


def fit_probe(
    features_ND: np.ndarray,
    targets_N: np.ndarray,
    *,
    num_labels: int,
    bias: bool,
    scale: bool,
    balanced: bool,
    seed: int,
) -> LinearProbe:
    """Multinomial logistic regression, its penalty chosen by the log-likelihood in cross-validation.

    bias: whether the layer has one. scale: bring every feature to unit variance first, which raw hidden states need.
    balanced: every label has the same say.
    """
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    # Products as small as these gain nothing from more threads, and those of BLAS would be in the way of torch's.
    with threadpool_limits(limits=1, user_api="blas"):
        scaler = StandardScaler(with_mean=bias and scale, with_std=scale).fit(features_ND)
        scaled_ND = scaler.transform(features_ND)
        c, right_N = _choose_c(scaled_ND, targets_N, bias=bias, balanced=balanced, seed=seed)
        model = _regression(bias=bias, balanced=balanced, tol=1e-4).set_params(C=c).fit(scaled_ND, targets_N)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn then keeps the second label's only
        coefficients, intercept = np.concatenate([-coefficients, coefficients]) / 2, np.array([-1, 1]) * intercept / 2
    weight_CD = np.zeros((num_labels, features_ND.shape[1]), dtype=np.float32)
    weight_CD[model.classes_] = coefficients / scaler.scale_ if scale else coefficients
    bias_C = np.zeros(num_labels, dtype=np.float32)
    if bias:
        bias_C[:] = intercept.min()  # a label that no row had is as unlikely as the rarest
        bias_C[model.classes_] = intercept
        if scale:
            bias_C -= weight_CD @ scaler.mean_.astype(np.float32)
    return LinearProbe(weight_CD, bias_C, c, right_N)


def clearly_better(one: LinearProbe, other: LinearProbe) -> bool:
    """Whether `one` is right more often than chance would make it (McNemar's test, 95 %)."""
    gained, lost = int((one.right & ~other.right).sum()), int((~one.right & other.right).sum())
    return gained - lost > 1.96 * math.sqrt(gained + lost)


def _choose_c(
    features_ND: np.ndarray, targets_N: np.ndarray, *, bias: bool, balanced: bool, seed: int
) -> tuple[float, np.ndarray]:
    """The best of CS, and which rows it got right when they were held out."""
    from sklearn.model_selection import StratifiedKFold

    losses = np.zeros(len(CS))
    right = np.zeros((len(CS), len(targets_N)), dtype=bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # labels with fewer rows than folds
        splits = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features_ND, targets_N))
    for learn, held_out in splits:
        if len(np.unique(targets_N[learn])) < 2:
            continue
        known = held_out[np.isin(targets_N[held_out], targets_N[learn])]
        model = _regression(bias=bias, balanced=balanced, tol=1e-3)  # which is best shows long before the end
        for number, c in enumerate(CS):  # each starts where the one before it ended
            model.set_params(C=c).fit(features_ND[learn], targets_N[learn])
            log_probs = model.predict_log_proba(features_ND[known])
            column = np.searchsorted(model.classes_, targets_N[known])
            losses[number] -= log_probs[np.arange(len(column)), column].sum()
            right[number, known] = log_probs.argmax(axis=1) == column
    best = int(losses.argmin())
    return CS[best], right[best]


def _regression(*, bias: bool, balanced: bool, tol: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        fit_intercept=bias, class_weight="balanced" if balanced else None, max_iter=300, tol=tol, warm_start=True
    )
