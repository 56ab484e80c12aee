"""Write docs/reference/{cli,config,exit-codes,library}.md from the code; with --check only compare.

python docs/generate_reference.py [--check]
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main

import textclf
from textclf import config, errors, presets
from textclf.cli.app import app
from textclf.data.catalog import CATALOG

SOURCE = Path(textclf.__file__).parent
REFERENCE = Path(__file__).parent / "reference"
MARK = "<!-- Written by docs/generate_reference.py; change the code, then run it again. -->"


def pages() -> dict[str, str]:
    """Every generated page: file name -> text."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "cli.md": _cli,
        "config.md": _config,
        "exit-codes.md": _exit_codes,
        "library.md": _library,
    }
    return {name: "\n".join([MARK, "", *make()]).rstrip() + "\n" for name, make in makers.items()}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check name those that are not as the code would have them."""
    stale = []
    for name, text in pages().items():
        path = REFERENCE / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8", newline="\n")
    print(", ".join(stale) or "nothing", "is out of date" if "--check" in arguments else "was written")
    return 1 if stale and "--check" in arguments else 0


# --- commands ---------------------------------------------------------------------------------------------------


def _cli() -> Iterator[str]:
    root: Any = typer.main.get_command(app)
    yield from ("# Commands", "", "Data goes to standard output, everything else to standard error.")
    yield "`textclf COMMAND --help` says the same as this page. What `--json` prints is in [json.md](json.md),"
    yield from ("how a command ends in [exit-codes.md](exit-codes.md).", "")
    yield from _command("textclf", root, own_only=True)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from (f"## textclf {name}", "", _cell(command.help), "")
            for inner_name, inner in command.commands.items():
                yield from _command(f"textclf {name} {inner_name}", inner, level="###")
        else:
            yield from _command(f"textclf {name}", command)


def _command(title: str, command: Any, *, level: str = "##", own_only: bool = False) -> Iterator[str]:
    arguments = [param for param in command.params if not param.opts[0].startswith("-")]
    options = [param for param in command.params if param.opts[0].startswith("-") and not param.hidden]
    usage = "COMMAND" if own_only else " ".join(_usage(param) for param in arguments)
    yield from (f"{level} {title}", "", "```text", f"{title} [OPTIONS] {usage}".rstrip(), "```", "")
    first, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    yield from (" ".join(first.split("\n")), "")
    if rest:
        yield from ("```text", rest, "```", "")
    if arguments:
        yield from ("| argument | |", "|---|---|")
        yield from (f"| `{_usage(param)}` | {_cell(param.help)} |" for param in arguments)
        yield ""
    yield from ("| option | |", "|---|---|")
    yield from (f"| {_spelling(param)} | {_cell(param.help)} |" for param in options)
    yield ""
    example = (command.epilog or "").partition("Example:")[2].strip()
    if example:
        yield from ("```sh", example, "```", "")


def _usage(param: Any) -> str:
    name = param.metavar or param.name.upper()
    if param.metavar and " " in param.metavar:  # says itself what may be left out
        return str(name)
    return (name if param.required else f"[{name}]") + ("..." if param.nargs == -1 else "")


def _spelling(param: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(param.opts, key=len, reverse=True))
    if param.is_flag or param.count:
        return names
    kinds = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}
    kind = param.metavar or kinds.get(_annotation(param), "VALUE")
    return f"{names} `{_cell(kind)}`"


def _annotation(param: Any) -> Any:
    descriptor = getattr(param, "type_descriptor", None)
    if descriptor is not None:
        return descriptor.annotation
    # An older typer, on click: its types have names.
    return {"text": str, "integer": int, "float": float, "path": Path}.get(param.type.name.split(" ")[0])


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


# --- configuration ----------------------------------------------------------------------------------------------


def _config() -> Iterator[str]:
    root: Any = typer.main.get_command(app)
    flags = {
        param.name: max(param.opts, key=len)
        for param in root.commands["finetune"].params
        if param.opts[0].startswith("--")
    } | {"name": "--model"}
    tree = ast.parse((SOURCE / "config.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    yield from ("# Configuration", "")
    yield from _config_preamble()
    for section, cls in config.SECTIONS.items():
        docs = _field_docs(classes[cls.__name__])
        hints = typing.get_type_hints(cls)
        yield from (f"## {section}", "", inspect.cleandoc(cls.__doc__ or ""), "")
        yield from ("| field | type | default | option | |", "|---|---|---|---|---|")
        for field in dataclasses.fields(cls):
            flag = flags.get(field.name, "") if f"{section}.{field.name}" != "data.seed" else ""
            cells = (
                f"`{section}.{field.name}`",
                _type(hints[field.name]),
                f"`{_plain(field.default)}`",
                f"`{flag}`" if flag else "",
                docs[field.name],
            )
            yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
        yield ""
    yield from ("## Presets", "", "`--preset NAME` starts from one of these.", "")
    for name in presets.names():
        text = (SOURCE / "presets" / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
        yield from (f"### {name}", "", "```yaml", text, "```", "")
    yield from ("## Known data sets", "", "`--dataset NAME` fetches one of these from the Hub.", "")
    yield from ("| name | on the Hub | |", "|---|---|---|")
    for name, entry in CATALOG.items():
        known = {"min_label_count": entry.min_label_count, "form": entry.form}
        note = "; ".join(f"`data.{field}` is {value} unless said" for field, value in known.items() if value)
        yield f"| `{name}` | `{entry.repo}{':' + entry.config if entry.config else ''}` | {note} |"
    yield from ("", f"`{', '.join(presets.shipped_data())}` is shipped with textclf and needs no Hub.")


def _config_preamble() -> Iterator[str]:
    yield "Every knob of a run. A later layer wins over an earlier one: defaults, `--preset`, `--config FILE`,"
    yield from ("options such as `--epochs`, `--set SECTION.FIELD=VALUE`.", "")
    yield "`none` as a default means: chosen from the data and the model. What was chosen is printed, and written to"
    yield from ("`config.json` of the run folder, which `--config` takes back.", "")
    yield from ("```sh", "textclf finetune --config run.yaml --set train.warmup=0.05", "```", "")
    yield from ("```yaml", "data:", "  dataset: tickets.csv", "model:", "  name: distilbert-base-uncased")
    yield from ("train:", "  epochs: 5", "  metric: macro_f1", "```", "")


def _field_docs(node: ast.ClassDef) -> dict[str, str]:
    """The text under each field."""
    docs = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            docs[field.target.id] = str(ast.literal_eval(text.value))
    return docs


def _type(hint: Any) -> str:
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{option}`" for option in options)
    if typing.get_origin(hint) is tuple:
        return "names"
    if options:
        return " or ".join("none" if option is type(None) else _type(option) for option in options)
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[hint]


def _plain(value: Any) -> str:
    return {None: "none", True: "true", False: "false"}.get(value, str(value)) if not _is_number(value) else f"{value}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- exit codes -------------------------------------------------------------------------------------------------


def _exit_codes() -> Iterator[str]:
    yield from ("# Exit codes", "", "| code | class | meaning |", "|---|---|---|", "| 0 | | Done. |")
    yield "| 1 | | A bug of textclf; `--debug` shows the traceback. Also the answer no to `textclf runs remove`. |"
    yield from sorted(_error_rows(), key=lambda row: int(row.split("|")[1]))
    yield "| 129 | `InterruptedRun` | SIGHUP, a terminal that closes. A training has written a checkpoint. |"
    yield "| 130 | `InterruptedRun` | SIGINT (Ctrl-C). A training has written a checkpoint. |"
    yield "| 141 | | Whoever read standard output has stopped, as `head` does. |"
    yield "| 143 | `InterruptedRun` | SIGTERM. A training has written a checkpoint. |"
    yield from ("", "A second signal ends the process at once, without another checkpoint.", "")
    yield "In Python these are exceptions in `textclf.errors`, all of them kinds of `textclf.TextclfError`, with"
    yield "`message`, `hint` (or None) and `exit_code`."


def _error_rows() -> Iterator[str]:
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, errors.TextclfError) and cls.exit_code != 1:
            yield f"| {cls.exit_code} | `{name}` | {_cell(inspect.getdoc(cls))} |"


# --- library ----------------------------------------------------------------------------------------------------

_CLASSES = {
    "textclf.data.prepared": ("Prepared",),
    "textclf.artifact.runs": ("Run",),
    "textclf.evaluation.evaluation": ("EvalReport",),
    "textclf.evaluation.comparison": ("Comparison", "Compared", "Difference"),
    "textclf.evaluation.audit": ("Audit", "Doubt"),
    "textclf.evaluation.exporting": ("Exported",),
    "textclf.evaluation.report": ("Report",),
    "textclf.metrics": ("Metrics",),
    "textclf.inference.prediction": ("Predictor", "Prediction"),
    "textclf.artifact.publishing": ("Pushed",),
}
"""What the public functions return: module -> classes."""


def _library() -> Iterator[str]:
    yield from ("# Library", "", "`import textclf` is light; torch is imported by the first call that needs it.", "")
    example = inspect.cleandoc(textclf.__doc__ or "").partition("\n\n")[2].replace(">>> ", "")
    yield from ("```python", example.replace("import textclf\n", "import textclf\n\n"), "```", "")
    yield from ("## Functions", "")
    for name, module in textclf._PUBLIC.items():
        node = _definition(module, name)
        if isinstance(node, ast.FunctionDef):
            yield from _function(f"textclf.{name}", node, level="###")
    yield from ("## What they return", "")
    for module, names in _CLASSES.items():
        for name in names:
            yield from _class(module, name)
    yield from ("## Errors", "", "`textclf.TextclfError` and its kinds: [exit-codes.md](exit-codes.md).")


def _class(module: str, name: str) -> Iterator[str]:
    node = _definition(module, name)
    assert isinstance(node, ast.ClassDef)
    yield from (f"### {name}", "", f"`{module}.{name}`", "", "```text", ast.get_docstring(node) or "", "```", "")
    fields = [f"{ast.unparse(one.target)}: {ast.unparse(one.annotation)}" for one in _fields(node)]
    if fields:
        yield from ("```python", *fields, "```", "")
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and _is_public(method):
            is_property = any(ast.unparse(one) == "property" for one in method.decorator_list)
            yield from _function(f"{name}.{method.name}", method, level="####", is_property=is_property)


def _is_public(method: ast.FunctionDef) -> bool:
    # What changes a run on disk is for textclf alone.
    return not method.name.startswith("_") and method.name != "update" and ast.get_docstring(method) is not None


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [one for one in node.body if isinstance(one, ast.AnnAssign)]


def _function(title: str, node: ast.FunctionDef, *, level: str, is_property: bool = False) -> Iterator[str]:
    returns = ast.unparse(node.returns) if node.returns else "None"
    yield from (f"{level} {title}", "", "```python")
    if is_property:
        yield f"{title}: {returns}"
    else:
        arguments = [one for one in _arguments(node.args) if one != "self"]
        short = f"{title}({', '.join(arguments)}) -> {returns}"
        if len(short) <= 100:
            yield short
        else:
            yield from (f"{title}(", *(f"    {one}," for one in arguments), f") -> {returns}")
    yield from ("```", "", "```text", ast.get_docstring(node) or "", "```", "")


def _arguments(args: ast.arguments) -> Iterator[str]:
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    yield from (_argument(one, default) for one, default in zip(plain, defaults, strict=True))
    if args.vararg:
        yield f"*{_argument(args.vararg, None)}"
    elif args.kwonlyargs:
        yield "*"
    yield from (_argument(one, default) for one, default in zip(args.kwonlyargs, args.kw_defaults, strict=True))
    if args.kwarg:
        yield f"**{_argument(args.kwarg, None)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{annotation}" + (f" = {ast.unparse(default)}" if default is not None else "")


def _definition(module: str, name: str) -> ast.stmt:
    path = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node for node in tree.body if getattr(node, "name", None) == name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
