"""YAML as this project reads it: a user's configuration and the package's own recipes alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bench.files import did_you_mean_path, reason

# YAML 1.1 takes 3e-4 and 1e5 for texts, for want of a dot or a sign
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class _Loader(yaml.SafeLoader):
    """YAML in which a name that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the name {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, its message in one line."""
    try:
        return _numbers(yaml.load(text, _Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        told = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ValueError(" ".join(f"{where}{told}".split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _numbers(value: Any) -> Any:
    """3e-4 as a number, and the names in mappings as texts."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if isinstance(value, dict):
        return {str(name): _numbers(inner) for name, inner in value.items()}
    return [_numbers(inner) for inner in value] if isinstance(value, list) else value


def read_mapping(file: Path, noun: str, problems: list[str]) -> dict[str, Any]:
    """The names and values of a YAML file; empty where it cannot be read, which is added to `problems`.

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
