"""What eval knows of single rows, and the page that shows it: the same numbers everywhere, and no text that runs."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textclf
import tiny_models
from textclf import atomic
from textclf.artifact import charts, runs
from textclf.artifact.figures import BASELINES, METRICS
from textclf.artifact.runs import Run
from textclf.errors import DataError, MissingExtraError, ModelError, UsageError
from textclf.evaluation import slices
from textclf.evaluation.evaluation import EvalReport
from textclf.labels import LabelSet
from textclf.metrics import Confusion, wrong_rows

Cli = Callable[..., subprocess.CompletedProcess[str]]

OWN = "document.documentElement.dataset.owned=1"
PAYLOADS = [
    shape.format(code)
    for code in (OWN, f"eval(&#39;{OWN}&#39;)", f"top[/al/.source+'ert'](1);{OWN}", f"`${{{OWN}}}`", f"0||({OWN})")
    for shape in (
        "<script>{0}</script>", "</script><script>{0}</script>", "<img src=x onerror={0}>", "<svg onload={0}>",
        "\"><svg/onload={0}>", "'><script>{0}</script>", "</style><script>{0}</script>", "</title><script>{0}</script>",
        "<iframe srcdoc='<script>parent.{0}</script>'>", "<a href='javascript:{0}'>x</a>", "<body onload={0}>",
        "<details open ontoggle={0}>", "<math><mi xlink:href='javascript:{0}'>", "--><script>{0}</script>",
        "]]><script>{0}</script>", "<input autofocus onfocus={0}>", "<base href='javascript:{0}//'>",
        "{{{{ {0} }}}}", "<style>@import 'http://x/{0}'</style>", "\x00<scr\x00ipt>{0}</scr\x00ipt>\x1b[31m\u202e",
    )
]  # fmt: skip
ALLOWED = {
    "html", "head", "meta", "title", "link", "style", "body", "a", "header", "h1", "h2", "h3", "p", "nav", "ul",
    "li", "main", "section", "dl", "div", "dt", "dd", "small", "strong", "table", "caption", "thead", "tbody", "tr",
    "th", "td", "span", "figure", "mark", "figcaption", "svg", "rect", "line", "circle", "polyline", "text",
    "details", "summary", "label", "input", "pre", "code", "bdi", "footer", "script",
}  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, what stands in script and style, and the text of everything else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.code: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.code.get(self._inside, self.words)).append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@pytest.fixture(scope="module")
def made(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Path]]:
    """A small run, and its data with a column of channels and one of many numbers."""
    folder = tmp_path_factory.mktemp("report")
    data = folder / "tickets.csv"
    rows = tiny_models.rows(200)
    # One label of the last third is wrong: mistakes that no model can avoid.
    labels = [label if number % 10 else "c" for number, (_, label) in enumerate(rows)]
    lines = [
        f"{text},{label},{'mail' if number % 3 else 'phone'},{number * 1.5}"
        for number, ((text, _), label) in enumerate(zip(rows, labels, strict=True))
    ]
    data.write_text("text,label,channel,price\n" + "\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        run = textclf.finetune(tiny_base, data, epochs=1, test_size=60, out=folder / "a <b>run")
    yield run, data


@pytest.fixture(scope="module")
def evaluated(made: tuple[Run, Path]) -> EvalReport:
    return textclf.evaluate(made[0], slice_by=("channel", "price"), device="cpu")


@pytest.fixture
def page(made: tuple[Run, Path], evaluated: EvalReport, tmp_path: Path) -> str:
    return textclf.report(made[0], output=tmp_path / "page.html").path.read_text(encoding="utf-8")


def test_mistakes_are_the_rows_answered_wrongly_surest_first(made: tuple[Run, Path], evaluated: EvalReport) -> None:
    lines = made[1].read_text().splitlines()[1:]
    assert evaluated.wrong == round((1 - evaluated.metrics.right) * evaluated.metrics.rows) > 0
    assert len(evaluated.mistakes) == evaluated.wrong
    scores = [one.score for one in evaluated.mistakes]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
    predictor = textclf.load(made[0], device="cpu")
    for one in evaluated.mistakes:
        text, label, *_ = lines[one.row - 1].split(",")
        assert (one.file, one.text, one.target) == ("tickets.csv", text, label)
        (answer,) = predictor.predictions([text])
        assert answer.label == one.predicted != one.target
        assert answer.score == pytest.approx(one.score, abs=1e-4)  # alone and among others texts round otherwise


def test_slices_divide_the_split(made: tuple[Run, Path], evaluated: EvalReport) -> None:
    parts = [evaluated.slices.by_length, *evaluated.slices.by_column.values()]
    assert list(evaluated.slices.by_column) == ["channel", "price"]
    for part in parts:
        assert sum(one.rows for one in part) == evaluated.metrics.rows
        right = sum(one.accuracy * one.rows for one in part) / evaluated.metrics.rows
        assert right == pytest.approx(evaluated.metrics.right)
        assert all(one.low <= one.accuracy <= one.high for one in part)
    by_channel = {one.name: one.rows for one in evaluated.slices.by_column["channel"]}
    assert set(by_channel) == {"mail", "phone"} and by_channel["mail"] > by_channel["phone"]
    assert len(evaluated.slices.by_column["price"]) == slices.BANDS, "many numbers are cut into bands"
    mean = np.mean([one.recall for one in evaluated.per_label if one.recall is not None])
    bands = evaluated.slices.by_label_frequency
    assert sum(one.recall * one.labels for one in bands) / sum(one.labels for one in bands) == pytest.approx(mean)


def test_an_unknown_column_is_named_with_the_nearest(made: tuple[Run, Path]) -> None:
    with pytest.raises(DataError, match="chanel"):
        textclf.evaluate(made[0], slice_by=("chanel",), device="cpu")


def test_no_number_is_no_value_of_a_column_of_numbers() -> None:
    targets, probs = np.zeros(60, dtype=np.int64), np.tile(np.float32([0.9, 0.1]), (60, 1))
    prices = [float("nan") if row % 3 == 0 else row * 0.5 for row in range(60)]
    found = slices.slice_by_column(prices, targets, probs, LabelSet(("a", "b")))
    assert len(found) == slices.BANDS + 1 and (found[-1].name, found[-1].rows) == ("(none)", 20)


def test_values_of_a_column_beyond_the_most_frequent_share_a_slice() -> None:
    names = LabelSet(("a", "b"))
    targets = np.arange(60) % 2
    probs = np.eye(2, dtype=np.float32)[targets]
    found = slices.slice_by_column([f"v{n}" if n % 2 else None for n in range(60)], targets, probs, names)
    assert [one.name for one in found[-2:]] == ["(10 other values)", "(none)"] or [one.name for one in found[-2:]] == [
        "(none)",
        "(10 other values)",
    ]
    assert {one.accuracy for one in found} == {1.0} and sum(one.rows for one in found) == 60
    found = slices.slice_by_column(["(none)", None, "(x)"] * 20, targets, probs, names)
    assert [one.name for one in found] == ["'(none)'", "(x)", "(none)"], "a value is told from none"


def test_a_multi_label_mistake_is_as_sure_as_its_worst_wrong_label() -> None:
    names = LabelSet(("a", "b", "c"), "multi")
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.uint8)
    probs = np.array([[0.9, 0.6, 0.7], [0.9, 0.2, 0.1], [0.1, 0.2, 0.8], [0.1, 0.1, 0.1]], dtype=np.float32)
    positions, scores = wrong_rows(targets, probs, names)
    assert positions.tolist() == [1, 0] and scores.tolist() == pytest.approx([0.8, 0.7])
    assert names.labels(targets) == [("a",), ("a", "b"), ("c",), ()]


def test_every_figure_is_the_same_in_page_markdown_card_json_and_terminal(
    made: tuple[Run, Path], page: str, cli: Cli, tmp_path: Path
) -> None:
    run = made[0]
    document = json.loads(cli("eval", str(run.folder), "--json").stdout)
    shown = cli("eval", str(run.folder)).stdout
    markdown = textclf.report(run, output=tmp_path / "page.md").path.read_text(encoding="utf-8")
    card = (run.model_folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>', page)
    for name, (words, _) in METRICS.items():
        value = document["metrics"].get(name)
        if value is None:
            continue
        kept = run.metrics["test"][name]  # training computed it, in other batches
        assert kept == pytest.approx(value, abs=5e-5)
        assert (words, f"{value:.4f}") in rows
        assert f"| {words} | {value:.4f} |" in markdown and f"| {words} | {kept:.4f} " in card
        assert f"{value:.4f}" in shown
        if name in document["intervals"]:
            low, high = (document["intervals"][name][end] for end in ("low", "high"))
            assert f"<td>{value:.4f}</td><td>{low:.3f} to {high:.3f}</td>" in page
            assert f"| {words} | {value:.4f} | {low:.3f} to {high:.3f} |" in markdown
    beside = document["baselines"]
    assert [one["name"] for one in beside] == ["majority", "tfidf", "probe"]
    seconds = run.document["seconds"]
    model = {"name": "this model", "metrics": {"test": document["metrics"]}, "rows": 120, "seconds": seconds}
    for one in (*beside, model):
        title = BASELINES.get(one["name"], f"<strong>{one['name']}</strong>")
        plain = re.sub("<.*?>", "", title)
        figures = [f"{one['metrics']['test'][name]:.4f}" for name in ("accuracy", "macro_f1")]
        cells = re.findall("<td>([^<]*)</td>", page.partition(f'<th scope="row">{title}</th>')[2].partition("</tr>")[0])
        assert cells[:2] == figures and cells[-2:] == [f"{one['rows']}", f"{one['seconds']:.1f}"]
        assert re.search(rf"\| {re.escape(plain)} \| {' . '.join(figures)} \|.* {one['seconds']:.1f} \|", markdown)
        assert f"| {plain} | {' | '.join(figures)} |" in card
        (line,) = [line for line in shown.splitlines() if line.strip().startswith(plain)]
        assert all(figure in line for figure in figures)
    assert beside == [{**one, "metrics": {"test": one["metrics"]["test"]}} for one in run.document["baselines"]]
    plots = {path.name: path.read_text(encoding="utf-8") for path in (run.model_folder / "plots").iterdir()}
    assert set(plots) == {"confusions.svg", "reliability.svg", "coverage.svg"}
    for name, text in plots.items():
        assert f"](plots/{name})" in card
        # Beside the card and on the page: the same cells, and curves but for what weights lose when they are written.
        assert all(f"<title>{cell}</title>" in page for cell in re.findall("<title>(.* of .*?)</title>", text)), name
        assert all(any(_near(one, other) for other in _curves(page)) for one in _curves(text)), name
    for one, dot in zip(
        document["reliability"], re.findall(r"measured, mean score (\S+): ([\d.]+)", page), strict=True
    ):
        assert (float(dot[0]), dot[1]) == (pytest.approx(one["confidence"], rel=1e-5), f"{one['accuracy']:.4f}")
        span = f"{one['low']:.2f} to {one['high']:.2f}"
        assert (span, f"{one['rows']}") in rows and f"| {span} | {one['rows']} | {one['confidence']:.4f} |" in markdown
    for one in document["per_label"]:
        # A label that was never answered has no precision.
        f1, precision = ("-" if one[name] is None else f"{one[name]:.3f}" for name in ("f1", "precision"))
        assert f"| {one['label']} | {f1} | {precision} |" in markdown
        assert f"<bdi>{one['label']}</bdi></th><td>{f1}</td>" in page
    largest = document["confusions"][0]
    for text in (markdown, card):
        assert f"| {largest['target']} | {largest['predicted']} | {largest['count']} |" in text


def _curves(page: str) -> list[list[float]]:
    return [[float(one) for one in re.split("[ ,]", points)] for points in re.findall('points="(.+?)"', page)]


def _near(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and bool(np.allclose(one, other, atol=0.2))


def test_the_page_shows_how_right_the_surest_answers_are(evaluated: EvalReport, page: str) -> None:
    assert evaluated.coverage is not None
    surest = min(evaluated.coverage, key=lambda point: point.coverage)
    drawn = page.partition('id="scores"')[2].partition("</section>")[0]
    assert f"from {surest.accuracy:.4g} to {evaluated.metrics.right:.4g}" in drawn and "share answered" in drawn


def test_the_page_needs_nothing_from_elsewhere_and_runs_only_its_own_script(page: str) -> None:
    parsed = Page(page)
    for tag, attributes in parsed.tags:
        assert tag in ALLOWED, tag
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc", "action")]
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#") or attributes[name] == "data:,", attributes
    policy = next(of["content"] for tag, of in parsed.tags if of.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; ")
    for kind in ("script", "style"):
        (code,) = parsed.code[kind]
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "url(" not in parsed.code["style"][0] and "@import" not in parsed.code["style"][0]


def test_mistakes_show_the_words_that_the_answer_rests_on(
    made: tuple[Run, Path], evaluated: EvalReport, page: str
) -> None:
    assert re.search('<mark class="most">[^<]+</mark>', page.partition('id="mistake-table"')[2])
    said = "".join(Page(page).words)
    assert all(one.text in said for one in evaluated.mistakes), "pieces make up the whole text"


def test_the_page_can_be_read_by_keyboard_and_by_ear(page: str) -> None:
    tags = Page(page).tags
    assert ("html", {"lang": "en"}) in tags
    ids = [of["id"] for _, of in tags if "id" in of]
    assert len(ids) == len(set(ids))
    for tag, of in tags:
        if tag == "a":
            assert str(of["href"]).removeprefix("#") in ids
        if tag == "svg":
            assert (of.get("role") == "img" and of.get("aria-label")) or of.get("aria-hidden") == "true"
        if "scroll" in str(of.get("class")).split():
            assert of.get("tabindex") == "0" and of.get("aria-label"), "what scrolls can be reached without a mouse"
    assert [tag for tag, _ in tags].count("table") == [tag for tag, _ in tags].count("caption")
    assert "prefers-color-scheme: dark" in page and 'content="width=device-width' in page


@pytest.fixture(scope="module")
def nasty(made: tuple[Run, Path], evaluated: EvalReport, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose name, labels, texts, columns, notes and settings are all payloads, as an evil data set could have."""
    folder = tmp_path_factory.mktemp("nasty") / PAYLOADS[3].replace("/", "")
    shutil.copytree(made[0].folder, folder)
    (folder / "model" / atomic.MANIFEST).unlink()  # as someone would who changes a model folder
    path = folder / "eval" / "test.json"
    document = json.loads(json.dumps(evaluated.as_dict()))
    one = document["mistakes"][0]
    document["mistakes"] = [
        one | {"text": text, "text_pair": text, "target": text, "predicted": PAYLOADS[n - 1], "file": text}
        for n, text in enumerate(PAYLOADS)
    ]
    document["dataset"] = PAYLOADS[0]
    document["per_label"] = [document["per_label"][0] | {"label": text, "support": 9} for text in PAYLOADS]
    document["confusions"] = [
        {"target": text, "predicted": PAYLOADS[n - 1], "count": 1, "share": 0.1} for n, text in enumerate(PAYLOADS)
    ]
    part = document["slices"]["by_column"]["channel"][0]
    document["slices"]["by_column"] = {text: [part | {"name": text}] for text in PAYLOADS}
    document["metrics"]["absent_labels"] = PAYLOADS
    path.write_text(json.dumps(document), encoding="utf-8")
    facts_path = folder / "model" / "textclf.json"
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    facts["config"]["data"]["text_column"] = PAYLOADS[1]
    facts["environment"] = {PAYLOADS[2]: PAYLOADS[4]}
    facts["dataset_id"] = facts["dataset_revision"] = facts["base_revision"] = facts["base_model"] = PAYLOADS[6]
    facts["label_counts"] = dict.fromkeys(PAYLOADS, 3)
    facts_path.write_text(json.dumps(facts), encoding="utf-8")
    run = runs.read(folder)
    assert run is not None
    return run.update(notes=PAYLOADS, model=PAYLOADS[5], stopped_early=PAYLOADS[7])


def test_a_hundred_payloads_everywhere_are_text_and_nothing_else(nasty: Run, tmp_path: Path) -> None:
    assert len(PAYLOADS) == 100
    text = textclf.report(nasty, output=tmp_path / "nasty.html").path.read_text(encoding="utf-8")
    test_the_page_needs_nothing_from_elsewhere_and_runs_only_its_own_script(text)
    said = "".join(Page(text).words)
    for payload in PAYLOADS:
        visible = re.sub("[\x00\x1b]", lambda match: f"\\x{ord(match[0]):02x}", payload)
        # In notes, labels, columns, slices, pairs and mistakes.
        assert said.count(visible) >= 5, payload
    assert "\x00" not in text and "\x1b" not in text
    markdown = textclf.report(nasty, output=tmp_path / "nasty.md").path.read_text(encoding="utf-8")
    assert not re.search(r"<(?!!--)[a-z/]", markdown.partition("~~~~yaml")[0])


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    return found


def test_no_payload_runs_in_a_browser_and_the_tables_can_be_sorted(nasty: Run, tmp_path: Path) -> None:
    path = textclf.report(nasty, output=tmp_path / "nasty.html").path
    done = subprocess.run(
        [_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert '<button type="button">label</button>' in done.stdout, done.stderr[-2000:]
    assert "data-owned" not in done.stdout.partition("<body")[0]
    assert "CONSOLE" not in done.stderr


@pytest.fixture
def typeset(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was given to Typst to be set, of each page; it is set too."""
    typst = pytest.importorskip("typst", reason="the extra `report` is not installed")
    given: list[dict[str, Any]] = []
    compiled = typst.compile

    def remember(*arguments: Any, sys_inputs: dict[str, str], **settings: Any) -> bytes:
        given.append(json.loads(sys_inputs["report"]))
        return bytes(compiled(*arguments, sys_inputs=sys_inputs, **settings))

    monkeypatch.setattr(typst, "compile", remember)
    return given


def test_pdf_and_png_hold_the_same_figures_and_plots_and_no_text_of_the_data(
    made: tuple[Run, Path], evaluated: EvalReport, typeset: list[dict[str, Any]], page: str, tmp_path: Path
) -> None:
    written = [textclf.report(made[0], output=tmp_path / f"page.{format}") for format in ("pdf", "png")]
    assert [one.format for one in written] == ["pdf", "png"]
    assert written[0].path.read_bytes().startswith(b"%PDF-")
    width, height = struct.unpack(">II", written[1].path.read_bytes()[16:24])
    assert width == 1191 and height > 3000, "one picture, as wide as the sheet, 144 pixels an inch"
    again = textclf.report(made[0], output=tmp_path / "again.pdf")
    assert again.path.read_bytes() == written[0].path.read_bytes()
    for one in typeset:
        assert not any(mistake.text in json.dumps(one, ensure_ascii=False) for mistake in evaluated.mistakes)
        tables = [block["table"] for block in one["blocks"] if "table" in block]
        cells = {tuple(cell for cell in row if isinstance(cell, str)) for table in tables for row in table["rows"]}
        for name, (words, _) in METRICS.items():
            value = evaluated.metrics.as_dict().get(name)
            if value is not None:
                interval = evaluated.intervals[name]
                shown = (words, f"{value:.4f}", f"{interval.low:.3f} to {interval.high:.3f}")
                assert any(row[:3] == shown for row in cells), name
        for baseline in evaluated.baselines:
            figures = [f"{value:.4f}" for value in baseline["metrics"]["test"].values()]
            assert any(list(row[1:3]) == figures for row in cells)
        plots = [plot for block in one["blocks"] for plot in block.get("plots", [])]
        assert len(plots) == 5 and all(plot["alt"] and plot["width"] <= 504 for plot in plots)
        assert all(points in page for plot in plots for points in re.findall('points=".+?"', plot["drawn"]))


def test_what_is_set_for_paper_is_never_read_as_markup(
    nasty: Run, typeset: list[dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = nasty.folder / "eval" / "test.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    names = ["#panic()", "$x^2$", "*a* _b_ `c` = d", "@ref <label>", '#read("/etc/hostname")', "\\u{1f} \\ // /* ```",
             "你好", "مرحبا", "नमस्ते", "🙂", "a\x00b\ud800", "\u202ex", "x" * 500, "", " "]  # fmt: skip
    for one, name in zip(document["per_label"], names, strict=False):
        one["label"] = name
    path.write_text(json.dumps(document), encoding="utf-8")
    for format in ("pdf", "png"):
        textclf.report(nasty, output=tmp_path / f"nasty.{format}")
    assert capfd.readouterr() == ("", ""), "no glyph that no font has is complained of"
    heads = {block["table"]["head"][0]: block["table"]["rows"] for block in typeset[0]["blocks"] if "table" in block}
    labels = {row[0] for row in heads["label"]}
    assert {*names[:5], "你好", "x" * 47 + "…"} <= labels and all(len(label) <= 48 for label in labels)


def test_without_the_extra_pdf_is_refused_before_any_work(
    made: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    monkeypatch.setattr("textclf.evaluation.report._content", None)
    for format in ("pdf", "png"):
        with pytest.raises(MissingExtraError, match="needs the package typst") as caught:
            textclf.report(made[0], output=tmp_path / f"page.{format}")
        assert 'pip install "textclf[report]"' in str(caught.value) and caught.value.exit_code == 2


def test_a_run_of_several_labels_a_text_has_its_page(tiny_base: Path, tmp_path: Path, no_graph: None) -> None:
    data = tmp_path / "tags.csv"
    texts = tiny_models.rows(120)
    data.write_text("text,label\n" + "".join(f"{text},{label}|all\n" for text, label in texts))
    run = textclf.finetune(tiny_base, data, label_delimiter="|", epochs=1, test_size=30, out=tmp_path / "multi")
    document = textclf.evaluate(run, device="cpu").as_dict()
    text = textclf.report(run).path.read_text(encoding="utf-8")
    assert "Labels that were missed or wrongly added" in text and f"{document['metrics']['micro_f1']:.4f}" in text
    assert f"<dd>{round(document['metrics']['subset_accuracy'] * 30)}<small>of 30 texts" in text
    if document["mistakes"]:
        assert isinstance(document["mistakes"][0]["target"], (list, tuple))
        assert ", ".join(document["mistakes"][0]["target"]) in text
    assert "Pairs of text and label by the label&#39;s score" in text and "--target-accuracy" not in text
    if importlib.util.find_spec("typst"):
        assert textclf.report(run, format="pdf").path.read_bytes().startswith(b"%PDF-")
    assert [path.name for path in (run.model_folder / "plots").iterdir()] == ["reliability.svg"]
    assert "| label | missed in |" in textclf.report(run, format="md").path.read_text(encoding="utf-8")


def test_a_run_that_cannot_keep_its_figures_gives_them(
    made: tuple[Run, Path], evaluated: EvalReport, tmp_path: Path, cli: Cli
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(made[0].folder, copied)
    shutil.rmtree(copied / "eval")
    (copied / "eval").write_text("no folder: nothing can be written into it")
    done = cli("eval", copied, "--json", "--device", "cpu")
    assert done.returncode == 0 and "not kept for textclf report" in done.stderr
    assert json.loads(done.stdout)["metrics"] == evaluated.as_dict()["metrics"]
    assert f"{evaluated.metrics.right:.4f}" in textclf.report(copied, output=tmp_path / "x.md").path.read_text()


def test_answers_of_a_rounded_model_do_not_pass_for_its_own(made: tuple[Run, Path], evaluated: EvalReport) -> None:
    kept = made[0].folder / "eval" / "test.json"
    before = kept.read_text(encoding="utf-8")
    assert textclf.evaluate(made[0], runtime="bf16", device="cpu").metrics.loss != evaluated.metrics.loss
    assert kept.read_text(encoding="utf-8") == before


def test_a_page_without_its_data_says_so_and_keeps_the_figures(
    made: tuple[Run, Path], evaluated: EvalReport, tmp_path: Path
) -> None:
    run, data = made
    elsewhere = data.rename(data.with_suffix(".moved"))
    try:
        text = textclf.report(run, output=tmp_path / "page.html").path.read_text(encoding="utf-8")
    finally:
        elsewhere.rename(data)
    assert "The data cannot be read where the run found it" in text
    assert f"{evaluated.metrics.right:.4f}" in text


def test_the_page_says_which_weights_were_kept(made: tuple[Run, Path], tmp_path: Path) -> None:
    run = made[0]
    before, best = run.document["share"], run.document["best_step"]
    try:
        for share, said in (
            (None, f"the weights of step {best} were kept"),
            (0.6, "kept were the weights 60 % of the way from the first to the last"),
        ):
            page = textclf.report(run.update(share=share), output=tmp_path / "page.html").path
            assert said in page.read_text(encoding="utf-8")
    finally:
        run.update(share=before)


def test_the_command_says_where_the_page_is(
    made: tuple[Run, Path], evaluated: EvalReport, cli: Cli, tmp_path: Path
) -> None:
    done = cli("report", str(made[0].folder), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == ["run", "split", "format", "path"] and document["split"] == "test"
    assert Path(document["path"]) == made[0].folder / "eval" / "test.html" and Path(document["path"]).is_file()
    assert cli("report", str(made[0].folder), "-o", tmp_path / "x.md").stdout == f"{tmp_path / 'x.md'}\n"
    assert (tmp_path / "x.md").read_text(encoding="utf-8").startswith("# a &#60;b&#62;run\n")
    assert cli("report", str(made[0].folder), "-f", "md", "-o", "-").stdout == (tmp_path / "x.md").read_text()
    folder = str(made[0].folder)
    for arguments, code in ((["nosuchrun"], 4), ([folder, "-f", "docx"], 2), ([folder, "-o", tmp_path / "x.docx"], 2)):
        failed = cli("report", *arguments)
        assert failed.returncode == code and "Traceback" not in failed.stderr
    with pytest.raises(ModelError):
        textclf.report()
    with pytest.raises(UsageError, match="is a folder"):
        textclf.report(made[0], output=tmp_path)


def test_the_end_of_a_run_shows_its_course_and_confusions(made: tuple[Run, Path], tiny_base: Path, cli: Cli) -> None:
    done = cli(
        "finetune", "-m", tiny_base, "-d", made[1], "--epochs", "1", "--test-size", "60", "--out", made[0].folder
    )
    assert done.returncode == 0, done.stderr
    assert "train loss" in done.stderr and re.search("[▁▂▃▄▅▆▇█]", done.stderr)
    facts = json.loads((made[0].model_folder / "textclf.json").read_text(encoding="utf-8"))
    assert facts["confusions"] and "largest confusions" in done.stderr


def test_sparkline_rises_with_the_numbers() -> None:
    assert charts.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert charts.sparkline([5.0, 5.0]) == "▄▄" and charts.sparkline([]) == ""
    assert len(charts.sparkline(list(range(1000)))) == 40


def test_labels_that_are_confused_stand_side_by_side() -> None:
    names = [f"l{n}" for n in range(77)]
    pairs = [Confusion("l3", "l70", 9, 0.9), Confusion("l70", "l3", 5, 0.5), Confusion("l10", "l40", 2, 0.2)]
    order = charts.by_similarity(names, pairs)
    assert sorted(order) == sorted(names)
    assert abs(order.index("l3") - order.index("l70")) == 1 and abs(order.index("l10") - order.index("l40")) == 1
    assert charts.most_confused(pairs) == ["l3", "l70", "l10", "l40"]
    drawn = charts.matrix(dict.fromkeys(names, 10), pairs, counts=False)
    # A cell for every label that was ever right, and one for each confusion.
    assert len(re.findall("<rect", drawn)) == 77 + 3 and "l3: 9 of 10 answered l70" in drawn
    assert len(drawn) < 100_000


def test_curves_span_the_run(tmp_path: Path) -> None:
    drawn = charts.lines("Loss", {"train": [(10, 2.0), (20, 1.0)], "validation": [(20, 1.5)]}, unit="nats")
    assert 'aria-label="Loss: train from 2 to 1, validation from 1.5 to 1.5"' in drawn
    assert charts.lines("Flat", {"x": [(0, 0.5)]}, unit="").count("<circle") == 1
