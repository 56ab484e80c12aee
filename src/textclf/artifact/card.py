"""The model card: what a person should know before using a model, and what the Hub reads of it."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import Any

from textclf import __version__, plugins, pretrained
from textclf.artifact import folder, graph, screening
from textclf.artifact.figures import METRICS, finite, markdown_table, results, split_reported, thousands
from textclf.artifact.markdown import escaped, plain
from textclf.artifact.screening import last_part
from textclf.config import PLACE
from textclf.labels import HALF, LabelSet
from textclf.metrics import LOWER_IS_BETTER

FEW_ROWS = 20
"""A label learnt from fewer rows than this is named among the limits."""

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def render(artifact: folder.Artifact, *, repo_id: str | None = None) -> str:
    """The card in Markdown with YAML front matter, for `repo_id` on the Hub or for the folder on disk.

    It says only what is known, and holds no text of the data. The same artifact gives the same card.
    """
    facts = artifact.facts or folder.Facts(max_length=artifact.max_length)
    base, dataset = _base(facts), plain(last_part(facts.dataset or ""))
    title = (
        repo_id.partition("/")[2]
        if repo_id
        else "-".join(filter(None, [PurePath(base).name, dataset])) or "text classifier"
    )
    parts = [
        _front_matter(facts, title),
        f"# {escaped(title)}",
        _what(artifact.label_set, base, dataset, facts),
        _labels(artifact.label_set, facts),
        _use(repo_id, artifact, facts),
        results(facts, artifact.folder),
        _training(facts, base, dataset),
        _limits(artifact, facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: folder.Facts, title: str) -> str:
    import yaml

    meta: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-classification"}
    if _on_shipped(facts):
        meta |= {"language": "en", "base_model": pretrained.BASE, "base_model_relation": "finetune"}
    elif _on_hub(facts.base_model, facts.base_revision):
        meta |= {"base_model": facts.base_model, "base_model_relation": "finetune"}
    if _on_hub(facts.dataset_id, "any"):
        meta["datasets"] = [facts.dataset_id]
    meta["tags"] = ["text-classification", "textclf"]
    split = split_reported(facts)
    scores = {
        name: value
        for name, value in finite(facts.metrics.get(split, {})).items()
        if name in METRICS and name not in LOWER_IS_BETTER
    }
    if scores:
        meta["metrics"] = sorted({METRICS[name][1] for name in scores})
        dataset = plain(last_part(facts.dataset or "")) or "own data"
        about: dict[str, Any] = {"type": facts.dataset_id or dataset, "name": dataset, "split": split}
        if facts.dataset_id and facts.dataset_revision:
            about["revision"] = facts.dataset_revision
        result = {
            "task": {"type": "text-classification", "name": "Text classification"},
            "dataset": about,
            "metrics": [
                {"type": kind, "name": words, "value": round(scores[name], 4)}
                for name, (words, kind) in METRICS.items()
                if name in scores
            ],
        }
        meta["model-index"] = [{"name": title, "results": [result]}]
    return f"---\n{yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=1000).rstrip()}\n---"


def _what(label_set: LabelSet, base: str, dataset: str, facts: folder.Facts) -> str:
    count = len(label_set)
    if label_set.multi:
        says = f"which of {count} labels fit it: none, one or several"
    else:
        which = (
            " or ".join(f"**{escaped(name)}**" for name in label_set.names) if count == 2 else f"one of {count} labels"
        )
        says = f"which label fits it best: {which}"
    made = f"It is {_base_link(base, facts)} fine-tuned" if base else "It was fine-tuned"
    rows = facts.splits.get("train")
    on = f" on {thousands(rows)} texts" if rows else ""
    of = (
        f" of {_data_link(dataset, facts)}"
        if dataset and rows
        else f" on {_data_link(dataset, facts)}"
        if dataset
        else ""
    )
    by = f" with textclf {facts.environment.get('textclf', __version__)}" if facts.environment else ""
    reads = {
        "pair": f"This model reads pairs of texts and says {says}.",
        "multiclass": "This model reads a question with its choices, all together, and says which choice answers it.",
        "binary": "This model reads a question with one choice at a time and says whether that is the answer; the best "
        "choice of a question is its answer.",
    }.get(facts.form, f"This model reads a text and says {says}.")
    return f"{reads} {made}{on}{of}{by}."


def _labels(label_set: LabelSet, facts: folder.Facts) -> str:
    counted = bool(facts.label_counts)
    rows = [
        [escaped(name)] + ([thousands(facts.label_counts.get(name, 0))] if counted else []) for name in label_set.names
    ]
    heads = ["label", *(["rows in train"] if counted else [])]
    if label_set.thresholds is not None and len(set(label_set.thresholds)) > 1:
        heads.append("given from")
        rows = [[*row, f"{threshold:g}"] for row, threshold in zip(rows, label_set.thresholds, strict=True)]
    table = markdown_table(heads, rows)
    if len(label_set) > 12:
        table = f"<details>\n<summary>All {len(label_set)} labels</summary>\n\n{table}\n\n</details>"
    return f"## Labels\n\n{_rule(label_set)}{table}"


def _rule(label_set: LabelSet) -> str:
    """From which probability on a label is given, in words; nothing where a text has one label."""
    if not label_set.multi:
        return ""
    thresholds = set(label_set.thresholds or (HALF,))
    floor = f"{min(thresholds):g}" if len(thresholds) == 1 else "the one in the table, chosen on validation texts"
    return f"A text is given every label whose probability (sigmoid) reaches a threshold: {floor}.\n\n"


def _use(repo_id: str | None, artifact: folder.Artifact, facts: folder.Facts) -> str:
    name, config, multi = repo_id or "path/to/this/folder", artifact.config, artifact.label_set.multi
    own_code, needs_leave = _own_code(config), _needs_leave(artifact)
    trust = ", trust_remote_code=True" if own_code else ""
    why = f"; `trust_remote_code=True` too, as {own_code} beside the weights" if own_code else ""
    one, file, said = _inputs(facts.form, "its labels" if multi else "one label")
    return f"""## How to use it

On the command line, {said}:

```bash
pipx install textclf
textclf predict {name} {file}
```
{needs_leave}{_with_transformers(name, trust, why, facts, multi=multi)}
From Python with textclf:

```python
import textclf

classifier = textclf.load("{name}")
classifier.predict([{one}])
```"""


def _own_code(config: dict[str, Any]) -> str | None:
    """What of a model transformers has not, and in which files it is defined."""
    if config.get("model_type") == "openelm":
        return f"OpenELM is not part of transformers and is defined in `{folder.MODELLING_OPENELM}`"
    if config.get("model_type") != screening.OWN_HEAD:
        return None
    code = config.get("head_code")
    if isinstance(code, dict):
        where = f"`{folder.HEAD_CODE}`" if "sha256" in code else f"the package of `{_code(str(code.get('module')))}`"
        also = f" and `{folder.MODELLING_OPENELM}`" * (config.get("text_config", {}).get("model_type") == "openelm")
        return f"its head is code of its author, in {where}, loaded by `{folder.MODELLING}`{also}"
    if config.get("text_config", {}).get("model_type") == "openelm":
        return f"OpenELM and its head are defined in `{folder.MODELLING_OPENELM}` and `{folder.MODELLING}`"
    return f"its pooled head is defined in `{folder.MODELLING}`"


def _needs_leave(artifact: folder.Artifact) -> str:
    """What textclf needs for a head that is code, in words; nothing for other heads."""
    code = artifact.config.get("head_code")
    if not isinstance(code, dict):
        return ""
    if "sha256" in code:
        flag = f"--head {folder.HEAD_CODE}:{_code(str(code.get('class')))}"
        needs = f"your leave: read `{folder.HEAD_CODE}`, and if you trust it give `{flag}`"
    else:
        needs = f"the package of `{_code(str(code.get('module')))}` installed, which registers it"
    if graph.belongs(artifact.folder):
        return f"\nIts head is code of its author. On a CPU the ONNX graph answers without it; torch needs {needs}.\n"
    return f"\nIts head is code of its author, and to run it textclf needs {needs}.\n"


def _inputs(form: str, answer: str) -> tuple[str, str, str]:
    """What a model reads: in Python, as a file, and in words with its answer."""
    if form == "pair":
        return (
            '("a text", "another text")',
            "pairs.csv",
            f"two texts a row in (csv, tsv, jsonl or parquet), {answer} per row out",
        )
    if form in ("binary", "multiclass"):
        question = '("What is 2 + 2?", ["3", "4"])'
        return question, "questions.jsonl", 'lines of `{"question": "...", "choices": ["...", "..."]}` in, answers out'
    return '"a text", "another text"', "texts.txt", f"one text per line in, {answer} per line out"


def _with_transformers(name: str, trust: str, why: str, facts: folder.Facts, *, multi: bool) -> str:
    if facts.form in ("binary", "multiclass"):
        return """
A pipeline of plain transformers neither builds the texts of questions and choices nor cuts the question alone.
"""
    pairs = facts.form == "pair"
    texts, prompted = '{"text": "a text", "text_pair": "another text"}' if pairs else '["a text", "another text"]', ""
    if facts.prompt is not None:
        # ASCII, and no character that could end the block.
        prompted = f"prompt = {json.dumps(facts.prompt).replace('`', chr(92) + 'u0060')}\n"
        texts = f'[prompt.replace("{PLACE}", text) for text in {texts}]'
        why += "; and the prompt around each text, which textclf puts there itself, is yours to put"
    every = ', top_k=None, function_to_apply="sigmoid"' if multi else ""
    differs = (
        " It gives the probability of every label; keep those that reach their threshold"
        f" (`thresholds` in `{folder.TEXTCLF}`, 0.5 where it has none)."
        if multi
        else ""
    )
    if pairs:
        differs = (
            " Where the tokenizer has no separator, textclf puts a line break between the two, and it puts nothing."
        )
    if facts.overflow != "truncate":
        differs += (
            f" Texts of more than {thousands(facts.max_length)} tokens get other scores there: textclf reads "
            + ("their start and their end." if facts.overflow == "head-tail" else "all of them, in windows.")
        )
    return f"""
With transformers alone. `truncation=True` is needed: without it a long text is an error{why}.{differs}

```python
from transformers import pipeline

{prompted}classify = pipeline("text-classification", model="{name}"{trust})
classify({texts}, truncation=True{every})
```
"""


def _training(facts: folder.Facts, base: str, dataset: str) -> str:
    lines = []
    if dataset:
        lines.append(
            f"- Data: {_data_link(dataset, facts)}"
            + (f", revision `{_code(facts.dataset_revision)}`" * bool(facts.dataset_revision))
        )
    if facts.splits:
        lines.append(
            "- Texts: " + ", ".join(f"{thousands(rows)} {escaped(split)}" for split, rows in facts.splits.items())
        )
    if facts.fingerprint:
        lines.append(f"- Fingerprint of the texts and labels as they were trained on: `{_code(facts.fingerprint)}`")
    if base:
        revision = f", revision `{_code(facts.base_revision)}`" if facts.base_revision else ""
        made = f", made from {_link(pretrained.BASE, pretrained.BASE, 'any')}" if _on_shipped(facts) else ""
        lines.append(f"- Base model: {_base_link(base, facts)}{revision}{made}")
    lines.append(f"- Reads {_reach(facts)}")
    if facts.environment:
        lines.append(
            "- Made with " + ", ".join(f"{escaped(name)} {escaped(value)}" for name, value in facts.environment.items())
        )
    config = _config(facts.config)
    return "## Training\n\n" + "\n".join(lines) + (f"\n\n{config}" if config else "")


def configuration(config: dict[str, Any]) -> str:
    """The settings that were made, as YAML; paths in them are cut to their last part."""
    import yaml

    said = {
        plain(section): {plain(key): _portable(value) for key, value in values.items() if value is not None}
        for section, values in config.items()
        if isinstance(values, dict)
    }
    if not said:
        return ""
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=1000).rstrip()


def _config(config: dict[str, Any]) -> str:
    text = configuration(config)
    if not text:
        return ""
    # Tildes: no value can begin a line of YAML with them unquoted, so none can end the block.
    return f"<details>\n<summary>Configuration</summary>\n\n~~~~yaml\n{text}\n~~~~\n\n</details>"


def _limits(artifact: folder.Artifact, facts: folder.Facts) -> str:
    names, counts = artifact.label_set.names, facts.label_counts
    limits = [
        f"It knows its {len(names)} labels only: "
        + (
            "a text about something else should get none, and may get one."
            if artifact.label_set.multi
            else "a text that fits none still gets one, maybe with a high score."
        ),
        _calibrated(facts),
        f"It reads {_reach(facts)}" + ("." if facts.overflow == "window" else "; the rest is cut off unseen."),
        "It reads English."
        if _on_shipped(facts)
        else "The languages it can read are not recorded. Expect those of its training texts, at most.",
        "No licence is stated here. Those of the base model"
        + (f" ({pretrained.LICENSE})" if _on_shipped(facts) else "")
        + " and of the data apply.",
    ]
    kind = (artifact.config.get("text_config") or artifact.config).get("model_type")
    if kind in plugins.names(plugins.BACKBONES):
        limits.append(
            f"Its architecture, {escaped(kind)}, is of a package that has to be installed, and imported, beforehand."
        )
    train = facts.splits.get("train")
    if train and train < 1000:
        limits.append(f"It learnt from only {thousands(train)} texts.")
    if counts:
        absent = [name for name in names if not counts.get(name)]
        rare = [name for name in names if 0 < counts.get(name, 0) < FEW_ROWS]
        most, least = max(counts.values()), min((count for count in counts.values() if count), default=0)
        if absent:
            limits.append(f"It never saw a text of {_some(absent)}, and cannot be expected to recognise one.")
        if rare:
            limits.append(f"It saw fewer than {FEW_ROWS} texts of {_some(rare)}.")
        if least and most >= 5 * least:
            limits.append(
                f"Its labels are imbalanced: the most frequent has {most / least:.0f} times the texts of the rarest."
            )
    if not facts.metrics.get("test"):
        limits.append("It was never measured on texts that had no part in making it.")
    unmeasured = [str(name) for name in facts.metrics.get(split_reported(facts), {}).get("absent_labels") or []]
    if unmeasured:
        limits.append(f"No text of {_some(unmeasured)} was among those it was measured on ({split_reported(facts)}).")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _calibrated(facts: folder.Facts) -> str:
    """What a score is worth, in words."""
    temperature = finite(facts.calibration).get("temperature")
    split = split_reported(facts)
    after = finite(facts.metrics.get(split, {})).get("ece")
    before = facts.calibration.get("before")
    of_split = before.get(split) if isinstance(before, dict) else None
    once = finite(of_split).get("ece") if isinstance(of_split, dict) else None
    if temperature is None or after is None or once is None:
        return "Its scores are not calibrated: 0.9 does not mean right nine times in ten."
    return (
        f"Its scores are calibrated on validation texts (temperature {temperature:.3g}, in the weights already): on "
        f"{split} they are {after:.4f} off on average (expected calibration error; {once:.4f} before). For texts of "
        "another kind they may be far off."
    )


def _reach(facts: folder.Facts) -> str:
    """How much of a text is read, in words."""
    most = thousands(facts.max_length)
    if facts.overflow == "window":
        return f"all of a text, {most} tokens at a time in overlapping windows whose logits are averaged"
    what = {
        "text": "a text",
        "pair": "a pair of texts, the longer of which is cut first",
        "binary": "a question and a choice, of which only the question is cut",
        "multiclass": "a question and its choices, of which only the question is cut",
    }[facts.form]
    if facts.overflow == "head-tail":
        return f"{most} tokens of {what}: a quarter from its start, the others from its end"
    return f"the first {most} tokens of {what}"


def _on_hub(name: str | None, revision: str | None) -> bool:
    return bool(name and revision and _HUB_NAME.fullmatch(name))


def _on_shipped(facts: folder.Facts) -> bool:
    """Whether the base is the model that is shipped; a folder of that name has no revision."""
    return facts.base_model == pretrained.NAME and facts.base_revision is not None


def _base(facts: folder.Facts) -> str:
    return plain(last_part(facts.base_model or ""))


def _link(text: str, name: str | None, revision: str | None) -> str:
    return f"[{escaped(text)}](https://huggingface.co/{name})" if _on_hub(name, revision) else escaped(text)


def _base_link(base: str, facts: folder.Facts) -> str:
    # What is shipped is no repository on the Hub.
    return escaped(base) if _on_shipped(facts) else _link(base, facts.base_model, facts.base_revision)


def _data_link(dataset: str, facts: folder.Facts) -> str:
    if not _on_hub(facts.dataset_id, "any"):
        return escaped(dataset)
    return f"[{escaped(dataset)}](https://huggingface.co/datasets/{facts.dataset_id})"


def _portable(value: Any) -> Any:
    if isinstance(value, str):
        return plain(last_part(value))
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    if isinstance(value, dict):
        return {plain(str(key)): _portable(item) for key, item in value.items()}
    return value


def _some(names: list[str]) -> str:
    listed = ", ".join(escaped(name) for name in names[:10])
    return f"{listed} and {len(names) - 10} more labels" if len(names) > 10 else listed


def _code(text: str | None) -> str:
    return plain(text or "").replace("`", "'")
