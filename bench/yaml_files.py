"""YAML as this project reads it: a user's configuration and the package's own recipes alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.files import did_you_mean_path, reason


def parse(text: str) -> Any:
    """Return the value of a YAML 1.2 text, the names in its mappings as texts.

    Raises:
        ValueError: it is not YAML, or gives a name twice; a message in one line.
    """
    from ruamel.yaml import YAML  # 0.1 s, which --help need not wait for
    from ruamel.yaml.error import YAMLError

    try:
        return _named(YAML(typ="safe", pure=True).load(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        told = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ValueError(" ".join(f"{where}{told}".split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _named(inner) for name, inner in value.items()}
    return [_named(inner) for inner in value] if isinstance(value, list) else value


def read_mapping(file: Path, noun: str, problems: list[str]) -> dict[str, Any]:
    """Return the names and values of a YAML file; none where it cannot be read, which is added to `problems`.

    Args:
        file: to read.
        noun: put before the file's name in messages ("config").
        problems: gets a sentence on what is wrong.
    """
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{noun} {str(file)!r} cannot be read: {reason(error)}{did_you_mean_path(file)}")
        return {}
    except UnicodeDecodeError:
        problems.append(f"{noun} {str(file)!r} cannot be read: expected text in UTF-8")
        return {}
    except ValueError as error:
        problems.append(f"{noun} {str(file)!r} is not YAML: {error}")
        return {}
    if found is None:
        return {}
    if not isinstance(found, dict):
        kind = "a list" if isinstance(found, list) else f"the value {found!r}"
        problems.append(f"{noun} {str(file)!r} holds {kind}: expected names and values, such as seeds: 0,1")
        return {}
    return found
