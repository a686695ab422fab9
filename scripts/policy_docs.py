"""Writes ``docs/reference/policy.md`` from the schema of policies; ``--check`` only says whether it is up to date.

Every key of the schema has its row: type, default, limits, and what the model says of it. The example at the top is
``examples/policies/monthly.yaml``, which a test holds valid.
"""

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from patchwave.domain.policy.policy import Policy, policy_schema  # noqa: E402 - found through the line above

PAGE = ROOT / "docs/reference/policy.md"
EXAMPLE = ROOT / "examples" / "policies" / "monthly.yaml"

type Schema = dict[str, Any]

_MAX_PATTERN = 60
_LEAST = {"minimum": "", "minLength": "character", "minItems": "entry", "minProperties": "name"}
_MOST = {"maximum": "", "maxLength": "character", "maxItems": "entry"}
_PLURALS = {"entry": "entries"}
_INTRODUCTION = """\
# Policies

<!-- Written by scripts/policy_docs.py from the schema: change patchwave/domain/policy/, then run `make docs`. -->

A policy says what to patch, when, how, and how carefully. People write it as YAML, the API speaks it as JSON, and
`GET /api/policies/schema` is its JSON Schema, for editors. A document is a valid policy, or it is refused with
everything that is wrong with it, each with its path and the fix; an unknown key is an error, never ignored. What only
several keys together can get wrong (a window that is shorter than one installation, rings in a circle) is refused as
well.

`patchwave policy validate -f FILE` checks a file on your machine, and `patchwave plan` shows what a run of it would do
([rollout planning](../explanation/rollout-planning.md)). What the [settings](settings.md) of the app
decide (the boundary of its subscriptions, the groups of snapshots, the hosts of probes, whether scripts are allowed)
only the service judges.
How `schedule` is read is in [schedules, windows and freezes](../how-to/schedules-and-freezes.md).

Durations are written `PTnHnM`, such as `PT1H30M`. Where a key takes a number of machines it mostly takes a per cent of
them as well, such as `"10%"`. An empty default means that there is none: the rule does not apply, the list is empty.
"""


def render(schema: Schema, example: str) -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## Example\n", f"```yaml\n{example.strip()}\n```\n", "## Keys\n"]
    for path, section in _sections(schema):
        if path:
            parts.append(f"### `{path}`\n")
        parts += [f"{_paragraph(section.get('description', ''))}\n", _table(path, section, schema)]
    return "\n".join(parts)


def _sections(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """The policy itself and every object inside it, with its path, in the order in which a reader meets them."""
    waiting = [("", schema)]
    while waiting:
        path, section = waiting.pop(0)
        yield path, section
        inner = [
            (f"{path}.{key}".lstrip(".") + suffix, target)
            for key, member in section["properties"].items()
            for suffix, target in _objects(member, schema)
        ]
        waiting = inner + waiting


def _objects(member: Schema, schema: Schema, suffix: str = "") -> Iterator[tuple[str, Schema]]:
    """The objects that a key may hold, itself or as entries of a list."""
    target = _resolve(member, schema)
    if "properties" in target:
        yield suffix, target
    elif target.get("type") == "array":
        yield from _objects(target.get("items", {}), schema, f"{suffix}[]")
    for choice in target.get("anyOf", []):
        yield from _objects(choice, schema, suffix)


def _table(path: str, section: Schema, schema: Schema) -> str:
    rows = ["| key | type | default | limits | meaning |", "|---|---|---|---|---|"]
    required = section.get("required", [])
    for key, member in section["properties"].items():
        default = "**required**" if key in required else _default(section, key, member, schema)
        limits = "; ".join(dict.fromkeys(_limits(member, schema)))
        meaning = _paragraph(member.get("description", ""))
        examples = ", ".join(f"`{_compact(example)}`" for example in member.get("examples", []))
        if examples:
            meaning += f" Example: {examples}" if len(member["examples"]) == 1 else f" Examples: {examples}"
        place = f"{path}.{key}".lstrip(".")
        cells = [f"`{key}`", _type(member, schema, place), default, limits, meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _type(member: Schema, schema: Schema, place: str) -> str:
    target = _resolve(member, schema)
    if "enum" in target:
        return "one of " + ", ".join(f"`{word}`" for word in target["enum"])
    if "anyOf" in target:
        kinds = [_type(choice, schema, place) for choice in target["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "properties" in target:
        return f"object, see [`{place}`](#{_anchor(place)})"
    match target.get("type"):
        case "array":
            return f"list of {_type(target.get('items', {}), schema, f'{place}[]')}"
        case "object":
            return f"names, each with {_type(target.get('additionalProperties', {}), schema, place)}"
        case "integer":
            return "whole number"
        case "boolean":
            return "true or false"
        case _:
            return {"date": "date", "date-time": "time"}.get(str(target.get("format")), "text")


def _default(section: Schema, key: str, member: Schema, schema: Schema) -> str:
    value: object = member["default"] if "default" in member else _made_default(section, key)
    if isinstance(value, dict):
        _, inner = next(_objects(member, schema))
        own = {name: _own_default(inner, name) for name in inner["properties"]}
        special = {name: each for name, each in cast("Schema", value).items() if each != own[name] != "object"}
        # Each of its keys has its own row, but for what stands here in another way.
        return f"`{_compact(special)}`" if special else "all defaults"
    return "" if value in (None, "", []) else f"`{_compact(value)}`"


def _own_default(section: Schema, key: str) -> object:
    """The default of a key, ``object`` for one that holds an object."""
    member = cast("Schema", section["properties"][key])
    value: object = member["default"] if "default" in member else _made_default(section, key)
    return "object" if isinstance(value, dict) else value


def _made_default(section: Schema, key: str) -> object:
    """A default that the model makes anew each time, which a schema does not tell."""
    model = _models(Policy).get(str(section["title"]), Policy)
    field = next(field for name, field in model.model_fields.items() if (field.alias or name) == key)
    made = field.get_default(call_default_factory=True, validated_data={})
    # A duration of nothing stands for one that another key implies, as its meaning says.
    return None if made is PydanticUndefined or made == timedelta(0) else to_jsonable_python(made, by_alias=True)


def _models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """This model and those inside it, by the title that they have in the schema."""
    found = {model.__name__: model}
    for field in model.model_fields.values():
        for inner in _models_of(field.annotation):
            if inner.__name__ not in found:
                found |= _models(inner)
    return found


def _models_of(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_of(argument)


def _limits(member: Schema, schema: Schema) -> Iterator[str]:
    target = _resolve(member, schema)
    for words, kinds in (("at least", _LEAST), ("at most", _MOST)):
        yield from (f"{words} {_counted(target[key], noun)}" for key, noun in kinds.items() if key in target)
    pattern = str(target.get("pattern", ""))
    if 0 < len(pattern) <= _MAX_PATTERN:
        yield f"matches `{pattern}`"
    for choice in target.get("anyOf", []):
        yield from _limits(choice, schema)
    for key in ("items", "additionalProperties"):
        inner = target.get(key)
        if isinstance(inner, dict) and "properties" not in _resolve(cast("Schema", inner), schema):
            limits = _limits(cast("Schema", inner), schema)
            yield from (limit if limit.startswith("each ") else f"each {limit}" for limit in limits)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else _PLURALS.get(noun, f'{noun}s')}" if noun else str(number)


def _resolve(member: Schema, schema: Schema) -> Schema:
    name = str(member.get("$ref", "")).rpartition("/")[2]
    return schema["$defs"][name] if name else member


def _anchor(place: str) -> str:
    """As GitHub makes it of a heading in code."""
    return "".join(each for each in place.lower() if each.isalnum() or each in "-_")


def _compact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _paragraph(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def main(arguments: list[str]) -> int:
    """Writes the page, or with ``--check`` compares it; 1 when it is not what would be written."""
    page = render(policy_schema(), EXAMPLE.read_text(encoding="utf-8"))
    if "--check" not in arguments:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not what the schema says: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
