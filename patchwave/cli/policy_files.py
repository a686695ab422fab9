"""Policy files and ``--set`` overrides: what people write, read as JSON values.

YAML is read by the rules of YAML 1.2's core schema. PyYAML's own rules turn ``19:00`` into 1140, ``NO`` into false and
an unquoted date into an object that is not JSON; a policy holds times, country codes and dates.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import yaml

from patchwave.cli.errors import RefusedError
from patchwave.cli.json_fields import Json

MAX_VALUES = 100_000
"""In one document, with what its aliases stand for: ten lines of aliases can stand for a billion."""


_INTEGER = r"^[-+]?[0-9]+$"
_FLOAT = r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"


class _PolicyDumper(yaml.SafeDumper):
    """Quotes what any reader could take for something else than a string: by YAML 1.1 or by 1.2."""


class _CoreLoader(yaml.SafeLoader):
    """YAML 1.2 core schema, without duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value!r} is there twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Ends of lines to YAML 1.1, which come back as spaces unless they are escaped."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS.search(text) else None
    return dumper.represent_scalar(  # pyright: ignore[reportUnknownMemberType] - untyped in PyYAML's stubs
        "tag:yaml.org,2002:str", text, style
    )


_PolicyDumper.add_representer(str, _write_text)

for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
):
    for _reader in (_CoreLoader, _PolicyDumper):
        _reader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] - untyped in PyYAML's stubs
            _tag, re.compile(_pattern), _first
        )


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """PyYAML would read a leading zero as octal: ``010`` is ten."""
    return int(_number(loader, node, _INTEGER))


def _fraction(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    """PyYAML would read ``1:30`` as 90, and underscores."""
    return float(_number(loader, node, _FLOAT))


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode, form: str) -> str:
    # A tag such as !!int stands before any text, and Python reads the digits of every script.
    text = str(loader.construct_scalar(node))
    if not re.fullmatch(form, text):
        raise ValueError(f"{text!r} is not a number")
    return text


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _decimal)
_CoreLoader.add_constructor("tag:yaml.org,2002:float", _fraction)


def _refuse(_: yaml.SafeLoader, node: yaml.Node) -> object:
    raise yaml.constructor.ConstructorError(None, None, f"{node.tag} is not JSON", node.start_mark)


for _tag in ("timestamp", "binary", "set", "omap", "pairs"):
    # No values of JSON.
    _CoreLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refuse)


def parse_value(text: str) -> object:
    """One YAML value: a word, a number, true, false, null, or a list or object in braces.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    loader = _CoreLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {})
        return loader.construct_document(node)  # pyright: ignore[reportUnknownMemberType] - untyped in the stubs
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, LookupError) as error:
        # A text that a tag such as !!int does not fit; or a number of thousands of digits.
        raise yaml.YAMLError(f"it holds a value that cannot be read: {error}") from error
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a part of a document stands for, aliases followed; 0 stands for what is being counted.

    Raises:
        yaml.YAMLError: they are too many, or a part holds itself.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = 0
        parts: list[Any] = node.value
        inner = (each for part in parts for each in (part if isinstance(node, yaml.MappingNode) else (part,)))
        counted[id(node)] = 1 + sum(_count_values(each, counted) for each in inner)
    found = counted[id(node)]
    if found == 0:
        raise yaml.YAMLError("a part of it holds itself")
    if found > MAX_VALUES:
        raise yaml.YAMLError(f"it stands for more than {MAX_VALUES} values")
    return found


def policy_text(policy: Json) -> str:
    """A policy as YAML that people edit and ``read_policy`` reads back to the same values."""
    return yaml.dump(policy, Dumper=_PolicyDumper, sort_keys=False, allow_unicode=True, width=100)


def read_policy(path: Path, standard_input: str | None = None) -> Json:
    """The policy in a YAML or JSON file, or in what came on standard input for ``-``; see `read_object`."""
    return read_object(path, standard_input, "a policy: it must be one object with keys such as name and scope")


def read_object(path: Path, standard_input: str | None, what: str) -> Json:
    """The object in a YAML or JSON file, or in what came on standard input for ``-``.

    Raises:
        RefusedError: the file cannot be read, is not YAML, or holds something else than one object.
    """
    if str(path) == "-":
        text = standard_input or ""
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise RefusedError(f"{path} cannot be read: {error}") from error
    try:
        found = parse_value(text)
    except yaml.YAMLError as error:
        raise RefusedError(f"{path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise RefusedError(f"{path} does not hold {what}")
    return cast("Json", found)


def merge_patch(settings: list[str]) -> Json:
    """The merge patch (RFC 7396) that ``--set path=value`` options describe; ``null`` takes a value away.

    A path is names with dots between them; ``\\.`` is a dot inside a name, for tags such as ``team\\.owner``.

    Raises:
        RefusedError: an option has no ``=``, an empty name, or contradicts another one.
    """
    patch: Json = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        names = [name.replace("\\.", ".") for name in re.split(r"(?<!\\)\.", path)]
        if not equals or not all(names):
            raise RefusedError(f"--set {setting!r} is not of the form path.to.value=VALUE")
        try:
            value = parse_value(text)
        except yaml.YAMLError as error:
            raise RefusedError(f"--set {path}: {text!r} is not a value: {error}") from error
        place = patch
        for name in names[:-1]:
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                raise RefusedError(f"--set {path}: {name} is set to a value by another --set")
            place = cast("Json", inner)
        if names[-1] in place:
            raise RefusedError(f"--set {path} is given twice")
        place[names[-1]] = value
    return patch
