"""Policy files and ``--set`` overrides: what people write, read as JSON values.

YAML is read by the rules of YAML 1.2's core schema. PyYAML's own rules turn ``19:00`` into 1140, ``NO`` into false and
an unquoted date into an object that is not JSON; a policy holds times, country codes and dates.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import yaml

from cli.documents import Json
from cli.errors import RefusedError


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


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("tag:yaml.org,2002:float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
):
    for _reader in (_CoreLoader, _PolicyDumper):
        _reader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] - untyped in PyYAML's stubs
            _tag, re.compile(_pattern), _first
        )


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """PyYAML would read a leading zero as octal: ``010`` is ten."""
    return int(str(loader.construct_scalar(node)))


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _decimal)


def parse_value(text: str) -> object:
    """One YAML value: a word, a number, true, false, null, or a list or object in braces.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return yaml.load(text, Loader=_CoreLoader)


def policy_text(policy: Json) -> str:
    """A policy as YAML that people edit and ``read_policy`` reads back to the same values."""
    return yaml.dump(policy, Dumper=_PolicyDumper, sort_keys=False, allow_unicode=True, width=100)


def read_policy(path: Path, standard_input: str | None = None) -> Json:
    """The policy in a YAML or JSON file, or in what came on standard input for ``-``.

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
        raise RefusedError(f"{path} does not hold a policy: it must be one object with keys such as name and scope")
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
