"""What a saved classifier answers in a process that has never heard of textclf."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PROGRAM = """
import json, sys
from transformers import pipeline
folders, texts = map(json.loads, sys.argv[1:])
answers = []
for folder in folders:
    classify = pipeline("text-classification", folder, top_k=None, device="cpu", trust_remote_code=True)
    # One text at a time: some of the tokenizers have no token to pad with.
    given = [{one["label"]: one["score"] for one in classify([text], truncation=True)[0]} for text in texts]
    answers.append([[scores[label] for label in "abc"] for scores in given])
assert "textclf" not in sys.modules
print(json.dumps(answers))
"""


def probabilities(folders: Sequence[Path], texts: Sequence[str], *, hub_cache: Path) -> np.ndarray:
    """(folders, texts, 3) float64: the probabilities of the labels a, b and c, by transformers' pipeline.

    hub_cache: where transformers puts the code that comes with a model. One process answers for all folders, because
    its start takes longer than its answers.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([str(folder) for folder in folders]), json.dumps(list(texts))],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HOME": str(hub_cache)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]))
