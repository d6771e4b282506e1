"""Options of a verb, generated from the fields of its request, which are the keys of its YAML file as well."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from backbones.registry import did_you_mean
from bench.spec.fields import PANELS, Flag, FrozenModel, problems_of
from bench.yaml_files import parse, read_mapping

M = TypeVar("M", bound=FrozenModel)
_SHOWN_CHOICES = 12  # letters of a list of choices that fits into the column of an option's value
# how an option's text becomes a value -> the name of a value in the help
_METAVARS = {"path": "PATH", "list": "LIST", "repeated": "TEXT", "mapping": "NAME=VALUE", "text": "TEXT"}


@dataclass(frozen=True)
class Option:
    """Option of a field of a request, or of a field of a mapping in it (`within`, such as recipe)."""

    field: str
    info: FieldInfo
    flag: Flag
    within: str = ""

    @property
    def name(self) -> str:
        return self.flag.name or self.field.replace("_", "-")

    @property
    def path(self) -> str:
        """The field's name with that of the mapping that it is in: `recipe.lr`."""
        return f"{self.within}.{self.field}" if self.within else self.field

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal; empty where the field takes others too."""
        kinds = _alternatives(self.info.annotation)
        found = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        return tuple(found) if all(get_origin(kind) is Literal for kind in kinds) else ()

    @property
    def kind(self) -> str:
        """The way from the option's text to a value: switch, path, list, repeated, mapping, text or (YAML) value."""
        if self.flag.repeated:
            return "repeated"
        kinds = [get_origin(kind) or kind for kind in _alternatives(self.info.annotation)]
        for one, kind in ((bool, "switch"), (Path, "path"), (tuple, "list"), (dict, "mapping"), (str, "text")):
            if kinds == [one]:
                return kind
        return "text" if self.choices and all(isinstance(choice, str) for choice in self.choices) else "value"

    @property
    def metavar(self) -> str | None:
        if self.flag.metavar or self.kind == "switch":
            return self.flag.metavar
        if self.flag.argument:
            return self.name.upper()
        joined = "|".join(map(str, self.choices))
        if joined and len(joined) <= _SHOWN_CHOICES:
            return joined
        kinds = _alternatives(self.info.annotation)
        number = "INTEGER" if int in kinds else "NUMBER" if float in kinds else "VALUE"
        return _METAVARS.get(self.kind, number)

    @property
    def help(self) -> str:
        """The field's description, with the choices that it leaves out and the default."""
        text = (self.flag.help or self.info.description or "").rstrip(".")
        choices = [str(choice) for choice in self.choices]
        if choices and self.metavar != "|".join(choices) and not all(choice in text for choice in choices):
            text += f"{': ' if text else ''}{', '.join(choices[:-1])} or {choices[-1]}"
        default = _shown(self.info.get_default()) if self.flag.default is None else self.flag.default
        repeatable = " Repeatable." if self.kind in ("repeated", "mapping") and not self.flag.argument else ""
        return f"{text}.{repeatable}" + (f" [default: {default}]" if default else "")

    def parameter(self) -> inspect.Parameter:
        """Return the parameter that Typer makes the option of; its value is checked later, with all the others."""
        several = self.kind in ("repeated", "mapping")
        plain = {"switch": bool, "path": Path}.get(self.kind, list[str] if several else str)
        required = self.info.is_required() and not self.within
        about: dict[str, Any] = {"help": self.help, "metavar": self.metavar, "show_default": False}
        if panel := self.flag.panel:
            about["rich_help_panel"] = panel
        if self.flag.argument:
            declared = typer.Argument(**about)
        else:
            both = self.kind == "switch" and not self.flag.one_way
            names = [f"--{self.name}/--no-{self.name}" if both else f"--{self.name}"]
            declared = typer.Option(*names, *([f"-{self.flag.short}"] if self.flag.short else []), **about)
        return inspect.Parameter(
            self.path.replace(".", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else None,
            annotation=Annotated[plain if required else plain | None, declared],
        )


def options_of(model: type[FrozenModel]) -> list[Option]:
    """Return the options of a request: of each field that is not `Flag(hidden=True)`, by the panels of the help.

    A mapping with `Flag(members=Recipe)` brings those fields of Recipe that have a flag of their own.
    """
    found = []
    for name, info in model.model_fields.items():
        flag = next((each for each in info.metadata if isinstance(each, Flag)), Flag())
        if flag.hidden:
            continue
        for inner, its in flag.members.model_fields.items() if flag.members else ():
            found += [Option(inner, its, each, name) for each in its.metadata if isinstance(each, Flag)]
        found.append(Option(name, info, flag))
    return sorted(found, key=lambda option: PANELS.index(option.flag.panel))


@dataclass
class Given(Generic[M]):
    """Values that a user gave on the command line.

    Attributes:
        model: the request that is to be made of it.
        values: by the fields' names; those of mappings are merged into the file's.
        flags: the path of each value -> how it is written on a command line, such as recipe.lr -> --lr.
        problems: sentences on what could not be read.
    """

    model: type[M]
    values: dict[str, Any]
    flags: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def parsed(cls, model: type[M], arguments: Mapping[str, Any]) -> Given[M]:
        """Read the texts of options, by the names of their parameters; None is one that was not given."""
        given = cls(model, {})
        for option in sorted(options_of(model), key=lambda option: bool(option.within)):
            value = arguments.get(option.path.replace(".", "_"))
            if value is None or value == []:  # Typer has [] for a repeated option that is not there
                continue
            flag = option.name.upper() if option.flag.argument else f"--{option.name}"
            if option.kind == "mapping":
                parts = [part for text in value for part in re.split(r",(?=[\w.-]+=)", text)]
                value = assignments(parts, flag, given.problems)
                given.flags |= {f"{option.path}.{name}": f"{flag} {name}" for name in value}
            elif option.kind == "value":
                value = scalar(value)
            into = given.values.setdefault(option.within, {}) if option.within else given.values
            if option.within and option.field in into:
                again = f"--{option.within} {option.field}={into[option.field]!r}"
                given.problems.append(f"{again}: {option.field} has a flag that is given too")
            into[option.field] = value
            given.flags[option.path] = flag
        return given

    def read(self, config: Path, problems: list[str]) -> dict[str, Any]:
        """Return the fields of a request that a YAML file sets; a name without a value counts as not given."""
        return self.fields(read_mapping(config, "config", problems), problems)

    def fields(self, written: Mapping[str, Any], problems: list[str], where: str = "config") -> dict[str, Any]:
        """Return the fields that the names and values of a file set, by the fields' names or the flags'.

        Args:
            written: of the file, or of a mapping in it.
            problems: gets a sentence on what is wrong.
            where: put before it.
        """
        options = options_of(self.model)
        fields_of_flags = {option.name.replace("-", "_"): option for option in options}
        fields: dict[str, Any] = {}
        inner: dict[str, dict[str, Any]] = {}
        for word, value in written.items():
            name = word.replace("-", "_")
            into = fields
            if option := fields_of_flags.get(name):
                name = option.field
                into = inner.setdefault(option.within, {}) if option.within else fields
            if name in into:
                problems.append(f"{where}: {word!r} says {name!r} a second time, expected it once")
            if value is not None:
                into[name] = value
        for name in _mappings(self.model):
            if not isinstance(fields.get(name, {}), dict):
                inside = "" if where == "config" else f"{where}."
                problems.append(f"{inside}{name} is {fields.pop(name)!r}: expected names and values")
        for mapping, values in inner.items():
            for name in sorted(values.keys() & fields.get(mapping, {}).keys()):
                problems.append(f"{where}: {name!r} is there by itself and in the {mapping}, expected it once")
            if values:
                fields[mapping] = {**fields.get(mapping, {}), **values}
        return fields

    def request(self, fields: Mapping[str, Any], problems: list[str]) -> M | None:
        """Return the request of what was given and, below it, `fields`.

        Fields that are wrong are told in `problems`, and their defaults stand in so that the others can be checked.
        None where that is not possible, as a field without a default is wrong.
        """
        merged = {**fields, **self.values}
        for name in _mappings(self.model):
            if name in fields and name in self.values:
                merged[name] = {**fields[name], **self.values[name]}
        known = [*self.model.model_fields, *(option.field for option in options_of(self.model) if option.within)]
        try:
            return self.model(**merged)
        except ValidationError as error:
            problems += problems_of(error, known=tuple(known))
            wrong = {found["loc"][0] for found in error.errors() if found["loc"]}
        try:
            return self.model(**{name: value for name, value in merged.items() if name not in wrong})
        except ValidationError as error:  # a field without a default, or values that do not go together
            problems += [one for one in problems_of(error, known=tuple(known)) if one not in problems]
            return None

    def checked(self) -> tuple[M | None, list[str]]:
        """Return the request of what was given, and all that is wrong with it."""
        problems = list(self.problems)
        return self.request({}, problems), problems


def takes(model: type[M]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of a request.

    The verb gets `Given` as its first argument, by place. Its other parameters are options of its own, declared to
    Typer as usual; they follow those of the request.
    """
    options = options_of(model)
    names = [option.path.replace(".", "_") for option in options]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        def command(**arguments: Any) -> None:
            given = Given.parsed(model, {name: arguments.pop(name) for name in names})
            verb(given, **arguments)

        _, *own = inspect.signature(verb, eval_str=True).parameters.values()
        parameters = [option.parameter() for option in options]
        parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def scalar(text: str) -> Any:
    """Read a flag's text as YAML; return the text itself where that is not a value."""
    try:
        return parse(text)
    except ValueError:
        return text


def assignments(texts: Iterable[str], flag: str, problems: list[str]) -> dict[str, Any]:
    """Read `name=value` texts into a mapping; values are YAML, so 0.5, true and [1, 2] are what they look like."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            problems.append(f"{flag} {text!r}: expected name=value")
            continue
        if name.strip() in found:
            problems.append(f"{flag} {text!r}: {name.strip()} is given twice, expected it once")
        try:
            found[name.strip()] = parse(value)
        except ValueError as error:
            problems.append(f"{flag} {text!r}: {value!r} is not a value ({error})")
    return found


def not_among(what: str, word: str, words: Sequence[str]) -> list[str]:
    """Return the sentence on a word that is not one of `words`; nothing where it is one."""
    if word in words:
        return []
    return [f"{what} is {word!r}: expected one of {', '.join(words)}{did_you_mean(word, words)}"]


def _mappings(model: type[FrozenModel]) -> list[str]:
    return [name for name, info in model.model_fields.items() if get_origin(info.annotation) is dict]


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types that a field may have, None left out."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for one in get_args(annotation) for kind in _alternatives(one)]
    return [] if annotation is type(None) else [annotation]


def _shown(default: Any) -> str:
    """Return a default in the words of a command line; an empty text where there is none to tell."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if isinstance(default, float):
        return f"{default:g}"
    return str(default) if isinstance(default, int | str) else ""
