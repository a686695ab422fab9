"""Policy files and ``--set``: YAML without YAML 1.1's surprises."""

import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from patchwave.cli.errors import RefusedError
from patchwave.cli.policy_files import merge_patch, parse_value, policy_text

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    ["22:30", "NO", "on", "010", "0x1f", "1e3", "1_000", "2026-11-10", "null", "~", "true", "=", "<<", ".5", "1.", ""]
)
KEYS = st.text(string.ascii_letters, min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_is_written_is_read_back(policy: dict[str, object]):
    assert parse_value(policy_text(policy)) == policy


@pytest.mark.parametrize("end_of_line", ["\n", "\r", "\x85", "\u2028", "\u2029"])
def test_every_end_of_a_line_is_read_back(end_of_line: str):
    policy = {"name": f"a{end_of_line}b", f"k{end_of_line}": end_of_line}
    assert parse_value(policy_text(policy)) == policy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("19:00", "19:00"),
        ("NO", "NO"),
        ("off", "off"),
        ("2026-11-10", "2026-11-10"),
        ("010", 10),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("-7", -7),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("[a, 1]", ["a", 1]),
        ("{a: {b: 2}}", {"a": {"b": 2}}),
        ('"5"', "5"),
    ],
)
def test_a_value(text: str, value: object):
    assert parse_value(text) == value


def test_anchors_and_merge_keys_work():
    text = "base: &base {a: 1, b: 2}\nused: {<<: *base, b: 3}\n"
    assert parse_value(text) == {"base": {"a": 1, "b": 2}, "used": {"a": 1, "b": 3}}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "more than 100000 values"),
        ("&a [*a]", "holds itself"),
        ("[" * 20_000, "nested too deeply"),
        ("9" * 5_000, "cannot be read"),
        ("!!int x", "cannot be read"),
        ("!!bool x", "cannot be read"),
        ("!!int 2٠", "cannot be read"),
        ("!!int 1_0", "cannot be read"),
        ("!!float 2.٠", "cannot be read"),
        ("!!float 1:30", "cannot be read"),
        ("!!timestamp x", "not JSON"),
        ("!!binary x", "not JSON"),
    ],
)
def test_aliases_and_unresolved_names_are_refused(text: str, why: str):
    """In words, and before it takes the memory of the machine."""
    with pytest.raises(yaml.YAMLError, match=why):
        parse_value(text)


def test_overrides_become_one_merge_patch():
    assert merge_patch(["scope.tags.values.team\\.owner=[me]", "scope.osTypes=[Linux]", "maxConcurrent=3"]) == {
        "scope": {"tags": {"values": {"team.owner": ["me"]}}, "osTypes": ["Linux"]},
        "maxConcurrent": 3,
    }


@pytest.mark.parametrize(
    "settings",
    [["maxConcurrent"], ["=5"], ["a..b=1"], ["a=1", "a.b=2"], ["a.b=1", "a=2"], ["a=1", "a=2"], ["a=[1"]],
)  # fmt: skip
def test_overrides_that_make_no_sense(settings: list[str]):
    with pytest.raises(RefusedError):
        merge_patch(settings)
