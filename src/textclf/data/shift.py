"""Whether two splits can be told apart by their texts alone, labels unseen."""

from __future__ import annotations

import numpy as np

from textclf.data.rows import Rows

SAMPLE = 3_000
"""Texts of each split that are looked at, at most."""
LEAST = 50
"""Texts of each split below which the figure would be mostly chance."""
_FOLDS = 3
_CHARACTERS = 2_000
"""Of each text: where it comes from shows in its beginning."""


def split_shift(one: Rows, other: Rows, *, seed: int) -> float | None:
    """ROC-AUC of a classifier that tells the splits apart, in cross-validation: 0.5 where they are alike, 1 where
    every text gives itself away. None for fewer than `LEAST` texts.

    Hashed words and pairs of words, TF-IDF, and logistic regression on equally many texts of both. Copies that lie in
    both splits count as they are.
    """
    size = min(len(one), len(other), SAMPLE)
    if size < LEAST:
        return None
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng([seed, 4])
    texts = [text for rows in (one, other) for text in _texts(rows, np.sort(rng.permutation(len(rows))[:size]))]
    origin_N = np.repeat([0, 1], size)
    # lowercase=False: a split that is written in capitals is another kind of text.
    counts_NF = HashingVectorizer(n_features=1 << 17, ngram_range=(1, 2), lowercase=False, alternate_sign=False)
    features_NF = TfidfTransformer(sublinear_tf=True).fit_transform(counts_NF.transform(texts))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(C=10, solver="liblinear")
    # Fold by fold: scores of different folds stand on different scales.
    scores_N = cross_val_predict(model, features_NF, origin_N, cv=folds, method="decision_function")
    held_out = [part for _, part in folds.split(features_NF, origin_N)]
    return float(np.mean([roc_auc_score(origin_N[part], scores_N[part]) for part in held_out]))


def _texts(rows: Rows, chosen: np.ndarray) -> list[str]:
    taken = rows.take(chosen)
    columns = [taken.table.column(name).to_pylist() for name in taken.text_names]
    return ["\n".join(parts)[:_CHARACTERS] for parts in zip(*columns, strict=True)]
