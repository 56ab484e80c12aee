"""The linear probe: logistic regression on what the pretrained backbone says already.

It is a baseline that costs one forward pass, and where the head starts: from a fresh head, the first steps would
pull the backbone about for nothing (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features").
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from textclf.labels import LabelSet
from textclf.model.losses import balanced_weights

CS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Inverse strengths of the penalty that cross-validation chooses from, for features of unit variance."""
CS_OF_EACH = (0.03, 0.1, 0.3, 1.0, 3.0)
"""The same where each label stands against the rest: its few positives are drowned by a strong penalty."""
FOLDS = 3
MAX_ROWS = 20_000
"""Training texts that a probe learns from, at most: more change little."""
WORK = 2e9
"""Rows x features x labels that a probe may take at most; above, rows are left out."""
SAME = 1e-5
"""Deviation of a feature up to which it is the same for all texts: as a share of its largest value, or of what other
features deviate by."""
LEAST_ROWS_PER_LABEL = 2
"""Rows per label, on average, under which a probe is not worth its time."""


@dataclass(frozen=True)
class CrossValidation:
    """What probes that learnt from parts of the texts say of one that learns from all.

    c: the inverse strength of the penalty that they speak for. right: (rows,) bool, which texts were labelled rightly
    by a probe that had not seen them. near: what one of them learnt, from where the one of all texts is not far: a
    LogisticRegression, None where no part had two labels; of texts with several labels (num_labels, width + 1) float64.
    """

    c: float
    right: np.ndarray
    near: Any


@dataclass(frozen=True)
class LinearProbe:
    """weight: (num_labels, width) float32. bias: (num_labels,) float32, zero where the layer has none."""

    weight: np.ndarray
    bias: np.ndarray

    def start(self, layer: nn.Linear) -> None:
        """Make it the layer's weights."""
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weight))
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(self.bias))


def rows_to_learn_from(targets: np.ndarray, label_set: LabelSet, *, width: int, seed: int) -> np.ndarray | None:
    """Which training rows a probe takes, sorted; None where they could not tell the labels apart."""
    limit = min(len(targets), MAX_ROWS, int(WORK / (width * len(label_set))))
    labels = int(np.count_nonzero(label_set.counts(targets)))
    if labels < 2 or limit < LEAST_ROWS_PER_LABEL * labels:
        return None
    return np.sort(np.random.default_rng([seed, 1]).permutation(len(targets))[:limit])


class Regression:
    """Logistic regression of features, multinomial or one of each label against the rest, as the label set asks for.

    features_ND: (rows, width) float32. bias: whether the layer has one. scale: bring every feature to unit variance
    first, which raw hidden states need. balanced: every label has the same say.
    """

    def __init__(
        self,
        features_ND: np.ndarray,
        targets: np.ndarray,
        *,
        label_set: LabelSet,
        bias: bool,
        scale: bool,
        balanced: bool,
    ) -> None:
        self._scaler = _scaler(features_ND, scale=scale, centre=bias)
        self._features_ND = self._scaler.transform(features_ND)
        self._targets, self._label_set = targets, label_set
        self._bias, self._scale, self._balanced = bias, scale, balanced

    def cross_validate(self, *, seed: int) -> CrossValidation:
        """Choose the penalty by the log-likelihood of texts that were not learnt from."""
        how: dict[str, Any] = {"bias": self._bias, "balanced": self._balanced, "seed": seed}
        if self._label_set.multi:
            return _choose_c_of_each(self._features_ND, self._targets, self._label_set, **how)
        return _choose_c(self._features_ND, self._targets, **how)

    def fit(self, chosen: CrossValidation) -> LinearProbe:
        """Learn from all texts, with the penalty that was chosen on them."""
        fit = _fit_independent if self._label_set.multi else _fit_multinomial
        weight_CD, bias_C = fit(
            self._features_ND, self._targets, chosen, self._label_set, bias=self._bias, balanced=self._balanced
        )
        if self._scale:
            weight_CD = weight_CD / self._scaler.scale_
            if self._bias:
                bias_C = bias_C - weight_CD @ self._scaler.mean_
        return LinearProbe(weight_CD.astype(np.float32), bias_C.astype(np.float32))


def held_out_probabilities(
    features_ND: np.ndarray, targets: np.ndarray, *, label_set: LabelSet, scale: bool, folds: int, seed: int
) -> np.ndarray:
    """What probes say of the texts that they have not learnt from, in cross-validation: (rows, num_labels) float32.

    The penalty is chosen once, on as many rows as a probe takes; so is what each probe learns from. scale: as of
    `Regression`. Raises ValueError for fewer than two labels or two rows.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    features_ND = _scaler(features_ND, scale=scale, centre=True).transform(features_ND)
    rng = np.random.default_rng([seed, 3])
    limit = max(2 * folds, min(MAX_ROWS, int(WORK / (features_ND.shape[1] * len(label_set)))))
    sample = np.sort(rng.permutation(len(targets))[:limit])
    probs_NC = np.zeros((len(targets), len(label_set)), dtype=np.float32)
    if label_set.multi:
        c = _choose_c_of_each(features_ND[sample], targets[sample], label_set, bias=True, balanced=False, seed=seed).c
        parts = KFold(folds, shuffle=True, random_state=seed).split(features_ND)
    else:
        c = _choose_c(features_ND[sample], targets[sample], bias=True, balanced=False, seed=seed).c
        fewest = max(2, min(folds, int(np.bincount(targets).max())))
        parts = StratifiedKFold(fewest, shuffle=True, random_state=seed).split(features_ND, targets)
    for learn, held_out in parts:
        learn = np.sort(rng.permutation(learn)[:limit])
        if label_set.multi:
            start = np.zeros((len(label_set), features_ND.shape[1] + 1))
            even_C = np.ones(len(label_set))
            weights = _descend(features_ND[learn], targets[learn], even_C, start, c=c, bias=True, tol=1e-3)
            probs_NC[held_out] = label_set.probabilities(features_ND[held_out] @ weights[:, :-1].T + weights[:, -1])
        else:
            model = _regression(bias=True, balanced=False).set_params(C=c)
            model.fit(features_ND[learn], targets[learn])
            probs_NC[np.ix_(held_out, model.classes_)] = model.predict_proba(features_ND[held_out])
    return probs_NC


def _scaler(features_ND: np.ndarray, *, scale: bool, centre: bool) -> Any:
    """What brings features to unit variance. scale: whether it does anything. centre: also take their means off."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(with_mean=centre and scale, with_std=scale).fit(features_ND)
    if scale:
        # What is the same for every text but for rounding says nothing, and would get an enormous weight.
        same_D = scaler.scale_ <= SAME * np.maximum(np.abs(features_ND).max(axis=0), np.median(scaler.scale_))
        scaler.scale_[same_D] = np.inf
    return scaler


def clearly_better(one: CrossValidation, other: CrossValidation) -> bool:
    """Whether `one` is right more often than chance would make it (McNemar's test, 95 %)."""
    gained, lost = int((one.right & ~other.right).sum()), int((~one.right & other.right).sum())
    return gained - lost > 1.96 * math.sqrt(gained + lost)


def _fit_multinomial(
    features_ND: np.ndarray,
    targets_N: np.ndarray,
    chosen: CrossValidation,
    label_set: LabelSet,
    *,
    bias: bool,
    balanced: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (num_labels, width) and biases (num_labels,)."""
    goes_on = chosen.near is not None and np.array_equal(chosen.near.classes_, np.unique(targets_N))
    model = copy(chosen.near) if goes_on else _regression(bias=bias, balanced=balanced)
    model.set_params(C=chosen.c, tol=1e-4).fit(features_ND, targets_N)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn then keeps the second label's only
        coefficients, intercept = np.concatenate([-coefficients, coefficients]) / 2, np.array([-1, 1]) * intercept / 2
    weight_CD = np.zeros((len(label_set), features_ND.shape[1]))
    weight_CD[model.classes_] = coefficients
    bias_C = np.zeros(len(label_set))
    if bias:
        bias_C[:] = intercept.min()  # a label that no row had is as unlikely as the rarest
        bias_C[model.classes_] = intercept
    return weight_CD, bias_C


def _choose_c(
    features_ND: np.ndarray, targets_N: np.ndarray, *, bias: bool, balanced: bool, seed: int
) -> CrossValidation:
    """The best of CS."""
    from sklearn.model_selection import StratifiedKFold

    losses = np.zeros(len(CS))
    right = np.zeros((len(CS), len(targets_N)), dtype=bool)
    folds = min(FOLDS, int(np.bincount(targets_N).max()))  # the most frequent label has a row for each
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(features_ND, targets_N)
    near: list[Any] = [None] * len(CS)
    for learn, held_out in splits:
        if len(np.unique(targets_N[learn])) < 2:
            continue
        known = held_out[np.isin(targets_N[held_out], targets_N[learn])]
        model = _regression(bias=bias, balanced=balanced)
        for number, c in enumerate(CS):  # each starts where the one before it ended
            model.set_params(C=c).fit(features_ND[learn], targets_N[learn])
            log_probs = model.predict_log_proba(features_ND[known])
            column = np.searchsorted(model.classes_, targets_N[known])
            losses[number] -= log_probs[np.arange(len(column)), column].sum()
            right[number, known] = log_probs.argmax(axis=1) == column
            near[number] = copy(model)
    best = int(losses.argmin())
    return CrossValidation(CS[best], right[best], near[best])


def _regression(*, bias: bool, balanced: bool) -> Any:
    """A regression that begins where it ended before; its tolerance is for a comparison, which shows long before the
    end.
    """
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        fit_intercept=bias, class_weight="balanced" if balanced else None, max_iter=300, tol=1e-3, warm_start=True
    )


def _fit_independent(
    features_ND: np.ndarray,
    targets_NC: np.ndarray,
    chosen: CrossValidation,
    label_set: LabelSet,
    *,
    bias: bool,
    balanced: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """As `_fit_multinomial`, each label against the rest."""
    positive_C = balanced_weights(label_set, targets_NC) if balanced else np.ones(len(label_set))
    weights = _descend(features_ND, targets_NC, positive_C, chosen.near, c=chosen.c, bias=bias, tol=1e-4)
    return weights[:, :-1], weights[:, -1]


def _choose_c_of_each(
    features_ND: np.ndarray, targets_NC: np.ndarray, label_set: LabelSet, *, bias: bool, balanced: bool, seed: int
) -> CrossValidation:
    """The best of CS_OF_EACH, each label against the rest."""
    from sklearn.model_selection import KFold

    positive_C = balanced_weights(label_set, targets_NC) if balanced else np.ones(len(label_set))
    losses = np.zeros(len(CS_OF_EACH))
    right = np.zeros((len(CS_OF_EACH), len(targets_NC)), dtype=bool)
    near = np.zeros((len(CS_OF_EACH), len(label_set), features_ND.shape[1] + 1))
    for learn, held_out in KFold(FOLDS, shuffle=True, random_state=seed).split(features_ND):
        weights = np.zeros((len(label_set), features_ND.shape[1] + 1))
        for number, c in enumerate(CS_OF_EACH):  # each starts where the one before it ended
            weights = _descend(features_ND[learn], targets_NC[learn], positive_C, weights, c=c, bias=bias, tol=1e-3)
            logits_NC = features_ND[held_out] @ weights[:, :-1].T + weights[:, -1]
            losses[number] += _log_loss(logits_NC, targets_NC[held_out], positive_C)[0]
            right[number, held_out] = ((logits_NC > 0) == targets_NC[held_out]).all(axis=1)
            near[number] = weights
    best = int(losses.argmin())
    return CrossValidation(CS_OF_EACH[best], right[best], near[best])


def _descend(
    features_ND: np.ndarray,
    targets_NC: np.ndarray,
    positive_C: np.ndarray,
    start: np.ndarray,
    *,
    c: float,
    bias: bool,
    tol: float,
) -> np.ndarray:
    """All labels' regressions at once: (num_labels, width + 1), the bias last.

    The sum of their losses has its minimum where each has its own, and one matrix product serves all: several times
    faster than scikit-learn's OneVsRestClassifier, which goes through the features once for each label.
    """
    from scipy.optimize import minimize

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape)
        logits_NC = features_ND @ weights[:, :-1].T + weights[:, -1]
        loss, slope_NC = _log_loss(logits_NC, targets_NC, positive_C)
        gradient = np.empty_like(weights)
        gradient[:, :-1] = slope_NC.T @ features_ND + weights[:, :-1] / c
        gradient[:, -1] = slope_NC.sum(axis=0) if bias else 0.0
        penalty = 0.5 * float(np.square(weights[:, :-1]).sum()) / c
        # Per text and label, so that the tolerance means the same for any number of them.
        return (loss + penalty) / targets_NC.size, gradient.ravel() / targets_NC.size

    options = {"maxiter": 300, "ftol": tol * 1e-4, "gtol": tol * 1e-3}
    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape)  # type: ignore[no-any-return]


def _log_loss(logits_NC: np.ndarray, targets_NC: np.ndarray, positive_C: np.ndarray) -> tuple[float, np.ndarray]:
    """Weighted binary cross-entropy summed over texts and labels, and its slope in the logits."""
    weight_NC = np.where(targets_NC, positive_C, 1.0)
    signed_NC = np.where(targets_NC, -logits_NC, logits_NC)
    loss = float((weight_NC * np.logaddexp(0, signed_NC)).sum())
    slope_NC = weight_NC / (1 + np.exp(-np.clip(signed_NC, -500, 500)))
    return loss, np.where(targets_NC, -slope_NC, slope_NC)
