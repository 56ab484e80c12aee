"""Named inputs that are wrong, and how the command line must end: exit code, words of the message.

`CASES` maps "family: name" to a Case. A case that need not be an error (a strange label, a byte that happens to be
harmless) may end in any of its codes; what holds for all is that nothing crashes, hangs or reaches the terminal raw.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import gzip
import io
import json
import os
import random
import struct
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from textclf import config

ROWS = [(f"words number {number}", "ab"[number % 2]) for number in range(40)]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\u2028\x85\x00\ufeff\u200b[red]x[/nope]:smile:"


@dataclass(frozen=True)
class Case:
    """arguments: of the command line; {here} is a fresh folder, {model} a good model folder, {bad} a copy to be spoilt.

    files: name -> content, written to the folder first; spoil: what is then done to the folder or the copy.
    codes: any of these ends it well. words: all of them stand in what it says.
    """

    arguments: Sequence[str]
    codes: tuple[int, ...]
    words: Sequence[str] = ()
    files: dict[str, str | bytes] = dataclasses.field(default_factory=dict)
    spoil: Callable[[Path], object] | None = None
    stdin: bytes = b""


CASES: dict[str, Case] = {}


def add(family: str, name: str, case: Case) -> None:
    key = f"{family}: {name}"
    assert key not in CASES, key
    CASES[key] = case


def data(family: str, name: str, file: str, content: str | bytes, *codes: int, words: Sequence[str] = ()) -> None:
    """A data file that `prepare` is given."""
    add(family, name, Case(["prepare", "--dataset", f"{{here}}/{file}"], codes or (3,), words, {file: content}))


# Encodings ------------------------------------------------------------------------------------------------------------

ODD = "naïve café Übergröße"
RUSSIAN, JAPANESE = "привет мир", "日本語のテキスト"
KINDS: dict[str, Callable[[str], str]] = {
    "csv": lambda text: CSV + f"{text},a\n",
    "tsv": lambda text: CSV.replace(",", "\t") + f"{text}\ta\n",
    "jsonl": lambda text: JSONL + f'{{"text": "{text}", "label": "a"}}\n',
    "json": lambda text: "[" + ",".join(JSONL.splitlines()) + f',{{"text": "{text}", "label": "a"}}]',
}
for _kind, _of in KINDS.items():
    for _encoding, _text in {
        "latin-1": ODD,
        "cp1252": ODD,
        "iso8859-15": ODD,
        "mac-roman": ODD,
        "cp437": ODD,
        "utf-16": ODD,
        "utf-16-le": ODD,
        "utf-16-be": ODD,
        "utf-32": ODD,
        "koi8-r": RUSSIAN,
        "cp1251": RUSSIAN,
        "shift_jis": JAPANESE,
        "euc-jp": JAPANESE,
        "gb18030": JAPANESE,
        "big5": "中文",
        "cp037": "abc",
    }.items():
        data("encoding", f"{_kind} in {_encoding}", f"t.{_kind}", _of(_text).encode(_encoding))
    for _name, _bytes in {
        "overlong slash": b"\xc0\xaf",
        "half a character": b"\xe2\x82",
        "surrogate": b"\xed\xa0\x80",
        "beyond Unicode": b"\xf5\x80\x80\x80",
        "lone continuation": b"\x80",
        "0xFF": b"\xff\xfe\xfd",
        "five bytes": b"\xf8\x88\x80\x80\x80",
    }.items():
        content = _of("@@@").encode().replace(b"@@@", _bytes)
        data("encoding", f"{_kind} with {_name}", f"t.{_kind}", content, words=["not UTF-8"])
    data("encoding", f"{_kind} with a byte order mark", f"t.{_kind}", _of("x").encode("utf-8-sig"), 0)
    for _name, _char in {
        "NUL": "\0",
        "ESC": "\x1b[31m",
        "C1": "\x9b",
        "bidi": "\u202e",
        "BOM within": "\ufeff",
    }.items():
        data("encoding", f"{_kind} with {_name}", f"t.{_kind}", _of(f"a{_char}b"), 0, 3)

# Tables ---------------------------------------------------------------------------------------------------------------

for _name, _content, _words in [
    ("nothing", "", ["is empty"]),
    ("blank lines", "\n\n\n", []),
    ("spaces", "   \n  \n", []),
    ("header alone", "text,label\n", ["no rows"]),
    ("header and blanks", "text,label\n\n\n", ["no rows"]),
    ("header of commas", ",,,\na,b,c,d\n", []),
    ("header without names", ",\na,b\n", []),
    ("one cell", "x", []),
    ("one column", "text\na\nb\n", ["one column"]),
    ("quote that never closes", CSV + '"open,a\n', ["does not close"]),
    ("quotes in the header", '"text","lab\nel"\na,b\n', []),
    ("row too long", CSV + "a,b,c,d\n", ["row 41", "fields"]),
    ("row too short", CSV + "a\n", ["row 41", "field"]),
    ("many rows of odd width", CSV + "a,b,c\n" * 50, ["row 41"]),
    ("same header twice", "text,text,label\na,b,c\n", ["named 'text'"]),
    ("labels all empty", "text,label\n" + "a,\n" * 40, ["no row of train has a label"]),
    ("texts all empty", "text,label\n" + ",a\n,b\n" * 20, ["empty"]),
    ("one label", "text,label\n" + "".join(f"w{n},a\n" for n in range(40)), ["one label only"]),
    ("every label different", "text,label\n" + "".join(f"w{n},l{n}\n" for n in range(40)), []),
    ("two rows", "text,label\na,x\nb,y\n", ["too few rows"]),
    ("the same row forever", "text,label\n" + "a,x\n" * 40, ["one label only"]),
    ("one text, two labels", "text,label\n" + "a,x\na,y\n" * 20, []),
    ("fractions for labels", "text,label\n" + "".join(f"w{n},0.{n + 1}\n" for n in range(40)), ["fractions"]),
    ("NUL for a separator", CSV.replace(",", "\0"), []),
    ("semicolons and commas", "text;label,x\n" + "a;b,c\n" * 5, []),
    ("only numbers", "1,2\n3,4\n5,6\n", []),
    ("HTML", "<html><body>404 not found</body></html>", []),
    ("an LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", []),
    ("a shell script", "#!/bin/sh\nrm -rf /\n", []),
]:
    data("table", f"csv, {_name}", "t.csv", _content, words=_words)
for _ending in ("\r", "\r\n", "\n\r"):
    data("table", f"csv, lines ending in {_ending!r}", "t.csv", CSV.replace("\n", _ending), 0, 3)
for _name, _value in {"200,000 characters": "x" * 200_000, "a line break": '"a\nb"', "quotes": '"say ""hi"""'}.items():
    data("table", f"csv, a text of {_name}", "t.csv", CSV + f"{_value},a\n", 0)
data("table", "csv, 3,000 columns", "t.csv", ",".join(f"c{n}" for n in range(3000)) + "\n")
data("table", "csv, a header of 100,000 characters", "t.csv", "x" * 100_000 + ",label\na,b\n", 0, 3)
data("table", "csv, formulas", "t.csv", CSV + "=cmd|' /C calc'!A0,a\n+1,b\n@x,a\n-2,b\n", 0)

# JSON ----------------------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "nothing": "",
    "blank": "  \n",
    "null": "null",
    "true": "true",
    "a number": "7",
    "a text": '"x"',
    "an empty list": "[]",
    "an empty object": "{}",
    "a list of numbers": "[1, 2]",
    "a list of lists": '[["a", "b"]]',
    "a list of null": "[null]",
    "an object of numbers": '{"a": 1}',
    "cut in a text": '[{"text": "a',
    "cut after a comma": '[{"text": "a"},',
    "a comma too much": '[{"text": "a", "label": "b"},]',
    "single quotes": "[{'text': 'a'}]",
    "a comment": "// x\n[]",
    "NaN": '[{"text": NaN, "label": "a"}]',
    "infinity": '[{"text": "a", "label": Infinity}]',
    "text is null": '[{"text": null, "label": "a"}]',
    "text is a list": '[{"text": ["a"], "label": "b"}]',
    "text is an object": '[{"text": {"a": 1}, "label": "b"}]',
    "text is true": '[{"text": true, "label": "b"}]',
    "label is an object": '[{"text": "a", "label": {"x": 1}}]',
    "label is a list of objects": '[{"text":"a","label":[{}]}]',
    "label is a list of lists": '[{"text": "a", "label": [["x"]]}]',
    "label is null": '[{"text": "a", "label": null}]',
    "5,000 digits": '[{"text": "a", "label": ' + "9" * 5000 + "}]",
    "nested 100,000 deep": "[" * 100_000,
    "objects 50,000 deep": '{"a":' * 50_000,
    "a lone surrogate": '[{"text": "\\ud800", "label": "b"}]',
    "a half escape": '[{"text": "\\u12"}]',
    "a raw line break": '[{"text": "a\nb"}]',
    "a raw tab": '[{"text": "a\tb"}]',
    "a byte order mark twice": "\ufeff\ufeff[]",
    "keys that differ": '[{"text":"a","label":"b"},{"words":"c"}]',
    "an empty key": '[{"": "a", "label": "b"}]',
    "two documents": '{"text":"a"} {"text":"b"}',
    "a key of 100,000": '[{"' + "k" * 100_000 + '": "a"}]',
    "1e999": '[{"text": "a", "label": 1e999}]',
    "mixed labels": '[{"text":"a","label":"x"},{"text":"b","label":["y"]}]',
}
for _name, _content in DOCUMENTS.items():
    for _kind in ("json", "jsonl"):
        data("JSON", f"{_kind}, {_name}", f"t.{_kind}", _content)
for _name in ("text is null", "a lone surrogate", "text is true", "label is null", "NaN", "infinity", "1e999"):
    row = DOCUMENTS[_name][1:-1]
    data("JSON", f"jsonl, {_name} among good rows", "t.jsonl", JSONL + row + "\n", 0, 3)

# Parquet, arrow, compression -----------------------------------------------------------------------------------------


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
COLUMNS: dict[str, Any] = {
    "integers": range(40),
    "fractions": [n + 0.5 for n in range(40)],
    "truth values": [n % 2 == 0 for n in range(40)],
    "bytes": [b"\xff\xfe"] * 40,
    "dates": [datetime.date(2026, 1, 1)] * 40,
    "times": [datetime.datetime(2026, 1, 1)] * 40,
    "nothing": [None] * 40,
    "lists": [["a"]] * 40,
    "structs": [{"a": 1}] * 40,
    "durations": [datetime.timedelta(1)] * 40,
    "decimals": [decimal.Decimal("1.5")] * 40,
    "maps": pa.array([[("a", 1)]] * 40, pa.map_(pa.string(), pa.int64())),
    "dictionary": pa.array(LABELS).dictionary_encode(),
    "large texts": pa.array(TEXTS, pa.large_string()),
    "views": pa.array(TEXTS, pa.string_view()),
    "not a number": [float("nan")] * 40,
}
for _name, _values in COLUMNS.items():
    _values = _values if isinstance(_values, pa.Array) else pa.array(list(_values))
    data("parquet", f"texts are {_name}", "t.parquet", parquet(text=_values, label=pa.array(LABELS)), 0, 3)
    data("parquet", f"labels are {_name}", "t.parquet", parquet(text=pa.array(TEXTS), label=_values), 0, 3)
WHOLE = {
    "parquet": parquet(text=pa.array(TEXTS), label=pa.array(LABELS)),
    "arrow": arrow(pa.table({"text": TEXTS, "label": LABELS})),
    "csv.gz": gzip.compress(CSV.encode(), mtime=0),
    "csv.zst": pa.compress(CSV.encode(), codec="zstd", asbytes=True),
}
for _kind, _whole in WHOLE.items():
    data("packed", f"{_kind}, whole", f"t.{_kind}", _whole, 0)
    for _share in (0, 10, 50, 99):
        data("packed", f"{_kind}, {_share} % of it", f"t.{_kind}", _whole[: len(_whole) * _share // 100], 0, 3)
    data("packed", f"{_kind}, all but a byte", f"t.{_kind}", _whole[:-1], 0, 3)
    data("packed", f"{_kind}, with more behind it", f"t.{_kind}", _whole + b"more", 0, 3)
    data("packed", f"{_kind}, zeros", f"t.{_kind}", bytes(len(_whole)))
    data("packed", f"{_kind}, is csv", f"t.{_kind}", CSV.encode())
    for _seed in range(5):
        _random = random.Random(_seed)
        _bytes = bytearray(_whole)
        for _ in range(3):
            _bytes[_random.randrange(len(_bytes))] ^= 1 << _random.randrange(8)
        data("packed", f"{_kind}, bits flipped, {_seed}", f"t.{_kind}", bytes(_bytes), 0, 3)
for _name, _magic in {
    "zip": b"PK\3\4",
    "xlsx": b"PK\3\4",
    "pdf": b"%PDF-1.7",
    "png": b"\x89PNG\r\n",
    "elf": b"\x7fELF",
    "sqlite": b"SQLite format 3\0",
    "gzip": b"\x1f\x8b\x08",
    "pickle": b"\x80\4",
    "zstd": b"\x28\xb5\x2f\xfd",
    "parquet": b"PAR1",
    "arrow": b"ARROW1\0\0",
}.items():
    data("packed", f"{_name} named csv", "t.csv", _magic + bytes(range(256)))
for _suffix in (
    "xlsx",
    "xls",
    "pkl",
    "pickle",
    "pt",
    "npy",
    "npz",
    "h5",
    "doc",
    "pdf",
    "zip",
    "tar.gz",
    "bz2",
    "xz",
    "",
    "py",
):
    data("packed", f"a file of kind .{_suffix}", f"t.{_suffix}".rstrip("."), CSV)

# Labels and texts ----------------------------------------------------------------------------------------------------

STRANGE = {
    "empty": "",
    "a space": " ",
    "a tab": "\t",
    "a line break": "a\nb",
    "NUL": "a\0b",
    "ESC": "\x1b[31mred\x1b[0m",
    "OSC 52": "\x1b]52;c;AAAA\x07",
    "OSC 8": "\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\",
    "C1": "\x9b2J\x85",
    "bidi": "\u202egnp.exe",
    "isolates": "\u2066x\u2069",
    "line separator": "a\u2028b",
    "zero width": "a\u200bb\u2060",
    "joiner": "a\u200db",
    "tags": "a\U000e0041\U000e0042",
    "byte order mark": "\ufeffa",
    "combining": "e\u0301" * 20,
    "zalgo": "a" + "\u0300" * 500,
    "markup": "[red]x[/nope]",
    "emoji code": ":smile:",
    "HTML": "<script>alert(1)</script>",
    "template": "{{ 7*7 }}${x}%s{0}",
    "a formula": "=cmd|' /C calc'!A0",
    "full-width formula": "＝1+1",
    "a path": "../../../etc/passwd",
    "Windows path": "C:\\con\\nul",
    "SQL": "'; DROP TABLE x;--",
    "YAML": "!!python/object:os.system",
    "markdown": "|`*_~#>\\[]()",
    "null": "null",
    "None": "None",
    "nan": "NaN",
    "true": "true",
    "minus one": "-1",
    "1e400": "1e400",
    "zero": "0",
    "leading zeros": "007",
    "long": "x" * 20_000,
    "emoji": "👩\u200d👩\u200d👧🏴\U000e0067\U000e007f",
    "Persian": "می\u200cخواهم",
    "Arabic": "مرحبا",
    "Thai": "สวัสดี",
    "private use": "\ue000\U000f0000",
    "noncharacter": "\ufffe\uffff",
    "special tokens": "[SEP][CLS]<|endoftext|></s>",
    "everything": NASTY.replace("\x00", ""),
}


def as_csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


for _name, _text in STRANGE.items():
    rows = "".join(f"words {n},{as_csv(_text) if n % 2 else 'b'}\n" for n in range(40))
    data("label", f"{_name}, csv", "t.csv", "text,label\n" + rows, 0, 3)
    rows = "".join(json.dumps({"text": f"{_text}{n}", "label": "ab"[n % 2]}) + "\n" for n in range(40))
    data("text", f"{_name}, jsonl", "t.jsonl", rows, 0, 3)
    column = json.dumps({_text: "w", "text": "a", "label": "b"}) + "\n"
    data("column", f"{_name}, jsonl", "t.jsonl", column * 40, 0, 3)
    add("predict", f"text {_name}", Case(["predict", "{model}"], (0,), stdin=_text.encode() + b"\n"))
for _format in ("tsv", "csv", "jsonl", "json", "table"):
    add(
        "predict",
        f"strange texts as {_format}",
        Case(["predict", "{model}", "--format", _format], (0,), stdin="\n".join(STRANGE.values()).encode()),
    )
for _name, _bytes in {
    "latin-1": b"caf\xe9\n",
    "surrogate": b"\xed\xa0\x80\n",
    "NUL": b"\0\0\0\n",
    "no line break": b"x",
    "nothing": b"",
    "blank lines": b"\n\n\n",
    "carriage returns": b"a\rb\r\nc\n",
    "a long line": b"x" * 300_000 + b"\n",
    "random": random.Random(0).randbytes(4000),
}.items():
    add("predict", f"bytes, {_name}", Case(["predict", "{model}"], (0, 3), stdin=_bytes))

# Names and paths -----------------------------------------------------------------------------------------------------

NAMES = {
    "nothing": "",
    "a dot": ".",
    "two dots": "..",
    "a slash": "/",
    "spaces": "   ",
    "a tilde": "~nobody-here/x",
    "a dash": "-",
    "two dashes": "--",
    "too long": "x" * 300,
    "a long path": "/".join(["d" * 200] * 30),
    "ESC": "\x1b]0;owned\x07.csv",
    "bidi": "\u202efdp.csv",
    "markup": "[/red]x[bold].csv",
    "a line break": "a\nb.csv",
    "a URL": "https://example.com/t.csv",
    "a URL with a password": "https://me:hunter2hunter2@example.com/t.csv",
    "s3": "s3://bucket/t.csv",
    "file": "file:///etc/passwd",
    "three parts": "a/b/c/d",
    "many dots": "../../../../../../nowhere.csv",
    "a surrogate": "\udcff.csv",
    "a device": "/dev/null",
    "zeros": "/dev/zero",
    "memory": "/proc/self/mem",
    "a glob": "*.csv",
    "an at sign": "a/b@c",
    "a colon": "a/b:c:d",
    "a percent sign": "a%2e%2e/b",
    "a template": "{here}{{x}}",
    "a dollar": "$HOME/x.csv",
    "a quote": "'\".csv",
}
for _name, _path in NAMES.items():
    if _path.startswith("{here}"):
        _path = "{{x}}"
    add("path", f"data set is {_name}", Case(["prepare", "--dataset", _path], (2, 3, 5)))
    add("path", f"model is {_name}", Case(["predict", _path], (2, 3, 4, 5), stdin=b"x\n"))
    add("path", f"run is {_name}", Case(["runs", "show", _path], (2, 4)))
    add("path", f"config is {_name}", Case(["finetune", "--config", _path], (2,)))
    add(
        "path",
        f"input is {_name}",
        Case(["predict", "{model}", "--", _path], (0, 2, 3))
        if _path != "/dev/zero"
        else Case(["predict", "{model}", "/dev/full/x"], (2, 3)),
    )
    add("path", f"preset is {_name}", Case(["finetune", "--preset", _path], (2,)))


def special(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return make


for _name, _make in {
    "a folder": lambda p: p.mkdir(),
    "a pipe": lambda p: os.mkfifo(p),
    "a broken link": lambda p: p.symlink_to("nowhere"),
    "a link to itself": lambda p: p.symlink_to(p.name),
    "an empty file": lambda p: p.touch(),
    "a link to a device": lambda p: p.symlink_to("/dev/null"),
}.items():
    for _what, _arguments, _codes in (
        ("data set", ["prepare", "--dataset", "{here}/t.csv"], (3,)),
        ("config", ["finetune", "--config", "{here}/t.csv"], (2,)),
        ("model", ["predict", "{here}/t.csv"], (3, 4)),
        ("input", ["predict", "{model}", "{here}/t.csv"], (0, 2, 3)),
    ):
        if (_name, _what) in (("a pipe", "config"), ("a pipe", "input")):
            continue  # read, and waited for, as by any other program
        add(
            "path", f"{_what} is {_name}", Case(_arguments, _codes, spoil=lambda here, make=_make: make(here / "t.csv"))
        )  # type: ignore[misc]
for _output in ("{here}", "{here}/no/such/x.tsv", "/dev/full", "/proc/x", "x" * 300, "{here}/t.txt"):
    add(
        "path",
        f"output is {_output[:30]!r}",
        Case(["predict", "{model}", "{here}/t.txt", "-o", _output], (0, 2, 6), files={"t.txt": "some words\n"}),
    )

# Settings ------------------------------------------------------------------------------------------------------------


def wrong_values(hint: Any) -> list[str]:
    """Texts that no field of this type takes."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    options = set(typing.get_args(hint)) if union else {hint}
    if str in options or any(typing.get_origin(option) is tuple for option in options):
        return []
    if options & {int, float}:
        return ["many", "-1e400", "[]"]
    return ["perhaps", "7", "[]", "\x1b[31m", "[/red]"]


FREE = {"train.eval_every"}
for _section, _class in config.SECTIONS.items():
    _hints = typing.get_type_hints(_class)
    for _field in dataclasses.fields(_class):
        _key = f"{_section}.{_field.name}"
        for _value in wrong_values(_hints[_field.name]):
            add("setting", f"{_key}={_value!r}", Case(["finetune", "--set", f"{_key}={_value}"], (2,), [_key]))
for _text in (
    "",
    "=",
    "a",
    "a=b",
    ".=x",
    "train.=1",
    ".epochs=1",
    "x.y=1",
    "train.epoch=1",
    "train.epochs",
    "\x1b.x=1",
    "train.x[red]=1",
):
    add("setting", f"--set {_text!r}", Case(["finetune", "--set", _text], (2,)))
CONFIGS = {
    "a list": "- a\n- b\n",
    "a text": "hello\n",
    "a number": "7\n",
    "a tab": "train:\n\tepochs: 3\n",
    "not closed": "train: {epochs: 3\n",
    "a section twice": "train: {}\ntrain: {}\n",
    "a key twice": "train:\n  epochs: 1\n  epochs: 2\n",
    "an unknown section": "trian: {}\n",
    "an unknown key": "train: {epoch: 1}\n",
    "a wrong type": "train: {epochs: [1]}\n",
    "a section that is a list": "train: [1]\n",
    "a Python object": "train: !!python/object/apply:os.system [id]\n",
    "a Python name": "x: !!python/name:os.system\n",
    "a date": "train: {seed: 2026-01-01}\n",
    "no date": "x: 2025-02-30\n",
    "an anchor of itself": "train: &a {epochs: *a}\n",
    "an unknown anchor": "train: *a\n",
    "two documents": "train: {}\n---\ntrain: {}\n",
    "a NUL": "train: \0\n",
    "an ESC": 'train: {metric: "\\e[31m"}\n',
    "a number as a key": "7: {}\n",
    "merge of a text": "<<: x\n",
    "nested deep": "[" * 5000,
    "a bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True))
    + "model: {name: *i}\n",
    "a bomb of names": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True))
    + "data: {columns: *i}\n",
    "infinite": "train: {epochs: .inf}\n",
    "not a number": "train: {epochs: .nan}\n",
    "octal": "train: {seed: 0o17, epochs: 0x}\n",
    "bytes": "train: {metric: !!binary aGk=}\n",
    "a set": "train: {metric: !!set {a, b}}\n",
    "null for a key": "~: {}\n",
    "a huge number": "train: {seed: " + "9" * 5000 + "}\n",
    "a long text": "train: {metric: " + "x" * 100_000 + "}\n",
    "a path of a secret": "model: {name: [/etc/passwd]}\n",
}
for _name, _content in CONFIGS.items():
    add("config", f"YAML, {_name}", Case(["finetune", "--config", "{here}/c.yaml"], (2,), files={"c.yaml": _content}))
for _name, _content in DOCUMENTS.items():
    if _name not in ("nothing", "blank", "null", "an empty object"):
        add("config", f"JSON, {_name}", Case(["finetune", "-c", "{here}/c.json"], (2,), files={"c.json": _content}))
for _encoding in ("utf-16", "latin-1", "cp037"):
    content = "train: {metric: café}\n".encode(_encoding)
    add("config", f"YAML in {_encoding}", Case(["finetune", "-c", "{here}/c.yaml"], (2,), files={"c.yaml": content}))
for _command in ("prepare", "finetune", "eval", "predict", "push", "export", "runs"):
    for _flag in ("--no-such-flag", "--jso", "-Z", "--\x1b[31m", "--[/red]", "--json=maybe", "--quiet=7"):
        add("flag", f"{_command} {_flag!r}", Case([_command, _flag], (2,)))
for _line in (
    ["nosuch"],
    ["[/red]"],
    ["\x1b[31m"],
    ["prepare"],
    ["finetune"],
    ["push"],
    ["push", "x"],
    ["push", "a/b/c"],
    ["push", "{model}", ""],
    ["push", "{model}", "-a/b"],
    ["push", "{model}", "a/.."],
    ["runs", "nosuch"],
    ["runs", "show"],
    ["runs", "remove"],
    ["runs", "remove", "nosuch"],
    ["runs", "path", "nosuch"],
    ["eval", "nosuch"],
    ["predict", "nosuch"],
    ["export", "nosuch"],
    ["predict", "{model}", "--top-k", "0"],
    ["predict", "{model}", "--top-k", "x"],
    ["predict", "{model}", "--threshold", "nan"],
    ["predict", "{model}", "--threshold", "2"],
    ["predict", "{model}", "--format", "xml"],
    ["predict", "{model}", "--format", ""],
    ["predict", "{model}", "--runtime", "evil"],
    ["predict", "{model}", "--device", "tpu"],
    ["predict", "{model}", "--device", "cuda:99"],
    ["predict", "{model}", "--runtime", "onnx"],
    ["predict", "{model}", "--runtime", "int8"],
    ["eval", "{model}", "--dataset", "nosuch.csv"],
    ["eval", "{model}", "--fail-under", "x"],
    ["eval", "{model}", "--fail-under", "a=b=c"],
    ["prepare", "--dataset", "{here}/t.csv", "--validation-size", "x"],
    ["prepare", "--dataset", "{here}/t.csv", "--test-size", "-1"],
    ["prepare", "--dataset", "{here}/t.csv", "--max-rows", "0"],
    ["prepare", "--dataset", "{here}/t.csv", "--min-label-count", "x"],
    ["prepare", "--dataset", "{here}/t.csv", "--text-column", "\x1b[31m"],
    ["prepare", "--dataset", "{here}/t.csv", "--label-column", "[/red]"],
    ["prepare", "--dataset", "{here}/t.csv", "--form", "evil"],
    ["prepare", "--dataset", "{here}/t.csv", "--columns", "a,a"],
    ["finetune", "--model", "x", "--dataset", "y", "--epochs", "x"],
    ["finetune", "--preset", "quickstart", "--lora", "-3"],
    ["finetune", "--preset", "quickstart", "--freeze", "all"],
    ["finetune", "--preset", "quickstart", "--prompt", "no place"],
):
    add(
        "flag",
        " ".join(_line).replace("{", "").replace("}", "")[:90].__repr__(),
        Case(_line, (2, 3, 4, 5, 6), files={"t.csv": CSV}),
    )

# Model folders -------------------------------------------------------------------------------------------------------


def spoilt(name: str, file: str, content: str | bytes | None, codes: tuple[int, ...] = (4,), *words: str) -> None:
    """A model folder with one file replaced, or taken away."""

    def spoil(here: Path) -> None:
        path = here / "model" / file
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    add("model", name, Case(["predict", "{bad}", "--device", "cpu"], codes, words, spoil=spoil, stdin=b"x\n"))


def changed(file: str, key: str, value: Any, codes: tuple[int, ...] = (4,), name: str = "") -> None:
    """A model folder with one key of a JSON file changed."""

    def spoil(here: Path) -> None:
        path = here / "model" / file
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, key: value}))

    said = name or f"{json.dumps(value)[:40]}"
    add(
        "model",
        f"{file}, {key} is {said}",
        Case(["predict", "{bad}", "--device", "cpu"], codes, spoil=spoil, stdin=b"x\n"),
    )


for _file in ("config.json", "tokenizer.json", "textclf.json", "tokenizer_config.json"):
    # predict reads tokenizer.json alone of the two.
    _codes = (4,) if _file != "tokenizer_config.json" else (0, 4)
    for _name in (
        "nothing",
        "blank",
        "null",
        "a number",
        "a text",
        "an empty list",
        "cut in a text",
        "single quotes",
        "NaN",
        "nested 100,000 deep",
        "5,000 digits",
        "two documents",
    ):
        spoilt(f"{_file}: {_name}", _file, DOCUMENTS[_name], _codes)
    spoilt(f"{_file}: an empty object", _file, "{}", (0, 4))
    spoilt(f"{_file}: latin-1", _file, b'{"a": "caf\xe9"}', _codes)
    spoilt(f"{_file}: zeros", _file, bytes(500), _codes)
    if _file not in ("textclf.json", "tokenizer_config.json"):
        spoilt(f"{_file} is missing", _file, None)
BAD = [None, True, -1, 2**70, "\x1b[31m[/red]", ["x"], {"x": None}]
for _key in (
    "id2label",
    "model_type",
    "hidden_size",
    "vocab_size",
    "num_attention_heads",
    "num_hidden_layers",
    "problem_type",
    "pad_token_id",
):
    for _value in BAD:
        if not (_key == "hidden_size" and _value == 2**70):
            changed("config.json", _key, _value, (0, 4, 8))
for _key in (
    "max_length",
    "prompt",
    "form",
    "columns",
    "overflow",
    "base_model",
    "splits",
    "label_counts",
    "thresholds",
    "metrics",
    "config",
    "environment",
    "schema_version",
):
    for _value in BAD:
        changed("textclf.json", _key, _value, (0, 4))
for _key in ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "version"):
    for _value in (None, "x", [], {"type": "Evil"}):
        changed("tokenizer.json", _key, _value, (0, 4))
spoilt("weights are missing", "model.safetensors", None)


def header(document: Any, *, size: int | None = None, body: int = 16) -> bytes:
    text = json.dumps(document).encode() if not isinstance(document, bytes) else document
    return struct.pack("<Q", len(text) if size is None else size) + text + bytes(body)


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
for _name, _content in {
    "nothing": b"",
    "seven bytes": b"1234567",
    "zeros": bytes(64),
    "header larger than the file": header({}, size=2**40),
    "header of 2^63": header({}, size=2**63),
    "header of 0": header({}, size=0),
    "no JSON": header(b"{{{{"),
    "a list": header([]),
    "no tensors": header({}),
    "unknown dtype": header({"w": {**ENTRY, "dtype": "F99"}}),
    "offsets backwards": header({"w": {**ENTRY, "data_offsets": [16, 0]}}),
    "offsets beyond the file": header({"w": {**ENTRY, "data_offsets": [0, 2**40]}}),
    "shape too large": header({"w": {**ENTRY, "shape": [2**31, 2**31]}}),
    "negative shape": header({"w": {**ENTRY, "shape": [-1]}}),
    "overlap": header({"a": ENTRY, "b": ENTRY}),
    "a hole": header({"w": {**ENTRY, "data_offsets": [8, 24]}}, body=24),
    "no offsets": header({"w": {"dtype": "F32", "shape": [2]}}),
    "of another model": header({"w": ENTRY}),
    "deep JSON": header(b'{"a":' * 5000),
    "random": random.Random(1).randbytes(500),
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
}.items():
    spoilt(f"weights: {_name}", "model.safetensors", _content)
for _name in ("nothing", "null", "a number", "a text", "an empty list", "cut in a text", "nested 100,000 deep"):
    spoilt(f"onnx/graph.json: {_name}", "onnx/graph.json", DOCUMENTS[_name], (0, 4))

# Run folders ---------------------------------------------------------------------------------------------------------

RUN = {"format": "textclf run 1", "state": "done", "started": "2026-01-01T00:00:00.000+00:00", "metrics": {}}
for _command in ("list", "show"):
    for _name in ("nothing", "null", "a text", "cut in a text", "nested 100,000 deep", "5,000 digits"):
        _arguments = ["runs", _command] + (["{home}/runs/r"] if _command != "list" else [])
        add(
            "run",
            f"{_command}: run.json is {_name}",
            Case(_arguments, (0, 4), files={"../home/runs/r/run.json": DOCUMENTS[_name]}),
        )
    for _key in (
        "state",
        "started",
        "updated",
        "metrics",
        "dataset",
        "model",
        "step",
        "environment",
        "message",
        "fingerprint",
    ):
        for _value in (None, 7, "\x1b[31m[/red]", {"x": {"y": "z"}}):
            _arguments = ["runs", _command] + (["r"] if _command != "list" else [])
            _files: dict[str, str | bytes] = {"../home/runs/r/run.json": json.dumps({**RUN, _key: _value})}
            _files["../home/runs/r/config.json"] = json.dumps({"data": {"dataset": NASTY}, "x": 7, NASTY: [NASTY]})
            add("run", f"{_command}: {_key} is {json.dumps(_value)}", Case(_arguments, (0, 4), files=_files))
