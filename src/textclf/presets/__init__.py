"""Ready-made run configurations, the data set that is shipped with them, and the reader of a user's own.

Each is a mapping of sections as in `config.py`, one layer for `config.build`, which checks the keys.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from textclf.errors import ConfigError, DataError

_HERE = resources.files(__name__)
_MAX_BYTES = 1 << 20


def names() -> list[str]:
    """The presets there are, sorted."""
    return _shipped(".yaml")


def load(name: str) -> dict[str, Any]:
    """The layer of a preset. Raises ConfigError, with the nearest name, when there is none of that name."""
    known = names()
    if name not in known:
        raise ConfigError(f"no preset {name!r}", hint=_suggestion(name, known))
    return _parse((_HERE / f"{name}.yaml").read_text(encoding="utf-8"), f"preset {name}", is_json=False)


def shipped_data() -> list[str]:
    """The data sets that are shipped in the package, sorted."""
    return _shipped(".csv")


def dataset_path(name: str) -> Path:
    """The file of a data set that is shipped in the package. Raises DataError when there is none of that name."""
    known = shipped_data()
    if name not in known:
        raise DataError(f"no data set {name!r} is shipped with textclf", hint=_suggestion(name, known))
    return Path(str(_HERE / f"{name}.csv"))


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The layer in a file that a user wrote (YAML) or a run left behind (JSON); an empty file is an empty layer.

    Raises ConfigError for a file that cannot be read, broken syntax (with the line), a key given twice,
    and anything that is no mapping.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8-sig")  # editors on Windows put a byte order mark in front
    except FileNotFoundError as err:
        raise ConfigError(
            f"{path}: no such file", hint="--config takes a YAML or JSON file; --preset takes a name"
        ) from err
    except IsADirectoryError as err:
        raise ConfigError(f"{path}: a folder, not a file", hint="--config takes a YAML or JSON file") from err
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text", hint="save the file as UTF-8") from err
    except (OSError, ValueError) as err:  # ValueError: a path with a NUL in it
        raise ConfigError(f"{path}: cannot be read: {getattr(err, 'strerror', None) or err}") from err
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path}: over a megabyte, which no config is", hint="--config takes a YAML or JSON file")
    return _parse(text, str(path), is_json=path.suffix.lower() == ".json")


def _parse(text: str, where: str, *, is_json: bool) -> dict[str, Any]:
    try:
        layer = _from_json(text, where) if is_json else _from_yaml(text, where)
    except RecursionError as err:
        raise ConfigError(f"{where}: nested too deeply") from err
    if layer is None:
        return {}
    if not isinstance(layer, dict):
        kind = {list: "a list", str: "a text", bool: "true or false"}.get(type(layer), "a number")
        raise ConfigError(
            f"{where}: holds {kind}, not sections of keys", hint="write for example\n  train:\n    epochs: 5"
        )
    # A section whose keys are all commented out reads as None.
    return {section: {} if values is None else values for section, values in layer.items()}


def _from_yaml(text: str, where: str) -> Any:
    import yaml

    try:
        # YAML lets a later key replace an earlier one; a second `train:` would silently undo the first.
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), where)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: broken YAML: {err.problem or err.context}", hint=_yaml_hint(text)) from err
    except yaml.reader.ReaderError as err:
        line = f", line {text.count(chr(10), 0, err.position) + 1}"
        raise ConfigError(f"{where}{line}: a character that YAML does not allow ({err.character!r})") from err
    except ValueError as err:  # a date such as 2025-02-30
        raise ConfigError(f"{where}: broken YAML: {err}") from err


def _check_keys(root: Any, where: str) -> None:
    """Raises ConfigError for a key given twice or no text, in the document and its sections."""
    import yaml

    if not isinstance(root, yaml.MappingNode):
        return
    for mapping in (root, *(value for _, value in root.value if isinstance(value, yaml.MappingNode))):
        seen: set[str] = set()
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"{where}, line {line}: {getattr(key, 'value', key.tag)} is not the name of a key")
            if key.value in seen:
                raise _twice(f"{where}, line {line}", key.value)
            seen.add(key.value)


def _from_json(text: str, where: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, where))
    except json.JSONDecodeError as err:
        raise ConfigError(f"{where}, line {err.lineno}: broken JSON: {err.msg}") from err
    except ConfigError:
        raise
    except ValueError as err:  # a whole number of more than 4,300 digits
        raise ConfigError(f"{where}: broken JSON: {err}") from err


def _object(pairs: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise _twice(where, key)
        made[key] = value
    return made


def _twice(where: str, key: str) -> ConfigError:
    return ConfigError(f"{where}: {key} is given twice", hint="keep one of them, or join them")


def _yaml_hint(text: str) -> str | None:
    return "YAML is indented by spaces, not by tabs" if "\t" in text else None


def _shipped(ending: str) -> list[str]:
    return sorted(entry.name.removesuffix(ending) for entry in _HERE.iterdir() if entry.name.endswith(ending))


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]}? " if near else "") + f"there are: {', '.join(known)}"
