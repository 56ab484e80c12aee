"""A head that is code of the user's own: found, run with leave only, and tried before it learns.

A head is a torch.nn.Module class, built as `Class(hidden_size=..., num_labels=...)`. Its `forward(hidden, mask)` takes
hidden (batch, tokens, hidden_size) and mask (batch, tokens) bool, False at padding, and gives logits
(batch, num_labels) float32. See docs/how-to/own-head.md.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.abc import ExecutionLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textclf import plugins
from textclf.artifact import consent
from textclf.artifact import folder as names
from textclf.config import HEADS, file_and_class
from textclf.errors import ModelError, RefusedError, UsageError
from textclf.model.modeling_textclf import HEAD_CLASSES, head_key

LENGTHS = (7, 3, 1)
"""Tokens of the texts that a head is tried on."""
TOLERANCE = 1e-4
"""Largest difference in fp32 that is rounding, as a share of the largest logit."""


@dataclass(frozen=True)
class HeadCode:
    """name: what the user calls it. cls: its class. source: the text of its file, None for an installed package's."""

    name: str
    cls: type[nn.Module]
    source: str | None

    @property
    def record(self) -> dict[str, str]:
        """What config.json says of it: of a file the class and the SHA-256, of a package name, module and class."""
        if self.source is not None:
            return {"class": self.cls.__name__, "sha256": consent.digest(self.source)}
        return {"class": self.cls.__name__, "module": self.cls.__module__, "entry_point": self.name}


def is_code(head: str | None) -> bool:
    """Whether a value of `model.head` names code."""
    return head is not None and head not in HEADS


def read(head: str) -> HeadCode:
    """The head that `FILE.py:CLASS`, or the name of an entry point, stands for. This runs the file.

    Raises UsageError for a file that is not there, that raises, or that has no such class; and for what is no Module.
    """
    parts = file_and_class(head)
    if parts is None:
        return _known(HeadCode(head, _checked(plugins.load(plugins.HEADS, head), head), None))
    path, name = Path(parts[0]).expanduser(), parts[1]
    try:
        source = path.read_bytes().decode("utf-8")
    except FileNotFoundError as err:
        raise UsageError(
            f"--head {head}: there is no such file",
            hint="give a Python file on this machine and a class in it: head.py:MyHead",
        ) from err
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not UTF-8 text", hint="save the file as UTF-8") from err
    except (OSError, ValueError) as err:
        raise UsageError(f"{path} cannot be read: {getattr(err, 'strerror', None) or err}") from err
    return _known(HeadCode(f"{path.name}:{name}", _class_in(source, path, name), source))


def of_record(record: Any, *, where: Path, given: str | None = None) -> HeadCode:
    """The code of a finished model's head, from what its config.json records of it.

    given: what the user says that it is, as for `read`. Raises RefusedError for code that nobody on this machine has
    allowed, ModelError where `given` is other code than the model was trained with, or for a record that is none.
    """
    if not isinstance(record, Mapping) or not isinstance(record.get("class"), str):
        raise ModelError(f"{where}: its {names.CONFIG} does not say which code its head is")
    if is_code(given):
        assert given is not None
        code = read(given)
        if head_key(code.record) != head_key(record) or code.record["class"] != record["class"]:
            raise ModelError(
                f"{given} is not the code that the head of {where} was trained with",
                hint=f"give the file as it was then; a copy lies beside the weights: {where / names.HEAD_CODE}"
                if "sha256" in record
                else f"its head is {record.get('entry_point')!r}, which an installed package registers",
            )
        return code
    known = _KNOWN.get(head_key(record))
    if known is not None and known.cls.__name__ == record["class"]:
        return known
    if "sha256" not in record:
        # To install a package that registers heads is leave to use them; a folder can only choose among those.
        name = str(record.get("entry_point"))
        if name not in plugins.names(plugins.HEADS):
            raise ModelError(
                f"{where}: its head is {name!r}, of a package that is not installed here",
                hint=f"install the package that has the module {record.get('module')}",
            )
        return read(name)
    source, copy = consent.remembered(record["sha256"]), where / names.HEAD_CODE
    if source is None:
        raise RefusedError(
            f"{where}: its head is code, and code from a model folder is not run without your leave",
            hint=f"read {copy}; if you trust it: --head '{copy}:{record['class']}'\n"
            "with its ONNX graph no such code is needed: --runtime onnx (the default of predict and eval on a CPU)",
        )
    path = Path(names.HEAD_CODE)
    return _known(HeadCode(f"{path}:{record['class']}", _class_in(source, path, record["class"]), source))


def try_head(code: HeadCode, head: nn.Module, *, hidden_size: int, num_labels: int) -> str | None:
    """Run a head on hidden states of texts of unlike length, together and alone, and in training.

    Gives the name of the linear layer whose output the logits are, None where it ends otherwise. A head may keep
    something of what it saw, so it is not for use afterwards. Raises ModelError for what no head may do.
    """
    if not any(parameter.requires_grad for parameter in head.parameters()):
        raise ModelError(f"{code.name} has no parameters that could learn", hint="give it a layer, such as nn.Linear")
    generator = torch.Generator().manual_seed(0)
    hidden_BTD = torch.randn((len(LENGTHS), LENGTHS[0], hidden_size), generator=generator)
    mask_BT = torch.arange(LENGTHS[0])[None] < torch.tensor(LENGTHS)[:, None]
    outputs: list[tuple[nn.Linear, Tensor]] = []

    def keep(module: nn.Linear, arguments: object, output: Tensor) -> None:
        outputs.append((module, output))

    hooks = [module.register_forward_hook(keep) for module in head.modules() if isinstance(module, nn.Linear)]
    try:
        head.eval()
        with torch.no_grad():
            together_BC = _checked_logits(code, head(hidden_BTD, mask_BT), len(LENGTHS), num_labels)
            last = [module for module, output in outputs if output is together_BC]
            _same(code, together_BC, head(hidden_BTD, mask_BT), "from call to call")
            for row, length in enumerate(LENGTHS):
                alone_1TD, mask_1T = hidden_BTD[row : row + 1, :length], mask_BT[row : row + 1, :length]
                alone_1C = _checked_logits(code, head(alone_1TD, mask_1T), 1, num_labels)
                _same(code, together_BC[row : row + 1], alone_1C, "with the padding, or with the texts beside a text")
        head.train()
        for count in (len(LENGTHS), 1):
            logits_BC = _checked_logits(code, head(hidden_BTD[:count], mask_BT[:count]), count, num_labels)
            if not logits_BC.requires_grad:
                raise ModelError(f"{code.name} gives logits that no parameter had a part in")
            logits_BC.sum().backward()
    except ModelError:
        raise
    except (Exception, SystemExit) as err:  # whatever the user's code raises
        raise ModelError(
            f"{code.name} fails{_line(err, code)} on {len(LENGTHS)} texts of width {hidden_size}: {_said(err)}",
            hint="forward(hidden, mask): hidden (batch, tokens, hidden_size), mask (batch, tokens) bool, "
            "to logits (batch, num_labels)",
        ) from err
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for name, module in head.named_modules() if last and module is last[-1]), None)


def build(code: HeadCode, *, hidden_size: int, num_labels: int) -> nn.Module:
    """A fresh head. Draws from torch's generator. Raises ModelError where the class cannot be built so."""
    try:
        return code.cls(hidden_size=hidden_size, num_labels=num_labels)
    except (Exception, SystemExit) as err:  # whatever the user's code raises
        raise ModelError(
            f"{code.name} cannot be built{_line(err, code)}: {_said(err)}",
            hint="it is built as Class(hidden_size=..., num_labels=...), by keyword",
        ) from err


def remember(record: Mapping[str, str] | None) -> None:
    """Let the code of a head that the user has trained with run again without a word, on this machine."""
    source = source_of(record) if record is not None else None
    if source is not None:
        consent.remember(source)


def source_of(record: Mapping[str, str]) -> str | None:
    """The text of the file of a head that is in use here; None for a package's."""
    return _KNOWN[head_key(record)].source


_KNOWN: dict[str, HeadCode] = {}
"""Heads that were read in this process."""


def _known(code: HeadCode) -> HeadCode:
    key = head_key(code.record)
    _KNOWN[key] = code
    HEAD_CLASSES[key] = code.cls
    return code


class _Source(ExecutionLoader):
    """Runs the very text that was read: what is run is what was hashed, and nothing is written beside the file."""

    def __init__(self, source: str, path: Path) -> None:
        self._source, self._path = source, path

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_filename(self, fullname: str) -> str:
        return str(self._path)


def _class_in(source: str, path: Path, name: str) -> type[nn.Module]:
    module_name = f"textclf_head_{consent.digest(source)[:16]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = spec_from_file_location(module_name, path, loader=_Source(source, path))
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses and typing look there
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as err:  # whatever the user's code raises
            del sys.modules[module_name]
            place = err.lineno if isinstance(err, SyntaxError) else _last_line(err, str(path))
            raise UsageError(
                f"{path}{f', line {place}' if place else ''}: running it raises {_said(err)}",
                hint="the file must run by itself: it may import installed packages, not files beside it"
                if isinstance(err, ImportError)
                else None,
            ) from err
    found = getattr(module, name, None)
    own = sorted(
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module_name
    )
    if found is None or getattr(found, "__module__", None) != module_name:
        raise UsageError(f"{path} defines no class {name!r}", hint=f"heads that it defines: {', '.join(own) or 'none'}")
    return _checked(found, f"{path}:{name}")


def _checked(found: object, name: str) -> type[nn.Module]:
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UsageError(f"{name} is no torch.nn.Module class", hint="write class MyHead(torch.nn.Module)")
    if found.__qualname__ != found.__name__ or not found.__name__.isidentifier():
        raise UsageError(f"{name} is defined inside {found.__qualname__.rpartition('.')[0]}; define it on its own")
    return found


def _checked_logits(code: HeadCode, logits: object, rows: int, num_labels: int) -> Tensor:
    wanted = f"it is to give logits ({rows}, {num_labels}) float32 for {rows} texts and {num_labels} labels"
    if not isinstance(logits, Tensor):
        raise ModelError(f"{code.name} gives {type(logits).__name__}, not a tensor", hint=wanted)
    if logits.shape != (rows, num_labels):
        raise ModelError(f"{code.name} gives a tensor of shape {tuple(logits.shape)}", hint=wanted)
    if logits.dtype != torch.float32:
        raise ModelError(f"{code.name} gives {str(logits.dtype).removeprefix('torch.')}", hint=wanted)
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{code.name} gives NaN or infinity", hint="an empty sum, or a softmax over padding alone?")
    return logits


def _same(code: HeadCode, one_BC: Tensor, other_BC: Tensor, what: str) -> None:
    if float((one_BC - other_BC).abs().max()) > TOLERANCE * max(1.0, float(other_BC.abs().max())):
        raise ModelError(
            f"{code.name}: its answers change {what}",
            hint="use the mask (False is padding), compute each text by itself, and drop out in training only",
        )


def _said(err: BaseException) -> str:
    first = str(err).strip().split("\n", 1)[0]
    return f"{type(err).__name__}: {first}" if first else type(err).__name__


def _line(err: BaseException, code: HeadCode) -> str:
    line = _last_line(err, sys.modules[code.cls.__module__].__file__ or "") if code.source is not None else None
    return f" in line {line}" if line else ""


def _last_line(err: BaseException, file: str) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(err.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
