"""Names of machines and runs: derived, compared without case, and refused when hostile."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.ids import MachineId, MachineType, RunId, is_machine_key, is_policy_name

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def machine_id(group: str = "rg-web", name: str = "web-01", subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"


groups = st.from_regex(r"[A-Za-z0-9_()-]([A-Za-z0-9_()-]{0,40}[A-Za-z0-9_()-])?", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}", fullmatch=True)
subscriptions = st.uuids().map(str)


@given(groups, names, subscriptions, st.booleans())
def test_an_id_is_kept_as_given_and_taken_apart(group: str, name: str, subscription: str, upper: bool) -> None:
    text = machine_id(group, name, subscription)
    if upper:
        text = text.upper()
    found = MachineId.parse(text)
    assert found.text == str(found) == text
    assert found.subscription_id == subscription.lower()
    assert found.resource_group.casefold() == group.casefold()
    assert found.name.casefold() == name.casefold()


@given(groups, names, subscriptions)
def test_point_38_ids_that_differ_by_case_are_one_machine(group: str, name: str, subscription: str) -> None:
    text = machine_id(group, name, subscription)
    spellings = [MachineId.parse(spelling) for spelling in (text, text.upper(), text.lower(), text.swapcase())]
    assert len(set(spellings)) == 1
    assert len({each.key for each in spellings}) == 1
    assert all(is_machine_key(each.key) for each in spellings)


LETTERS = st.characters(categories=["L", "Mn", "Mc", "Nd"], include_characters="_-")
unicode_names = st.text(LETTERS, min_size=1, max_size=63).map(lambda text: f"v{text}")


@given(unicode_names, unicode_names, subscriptions)
def test_names_hold_letters_of_any_script(group: str, name: str, subscription: str) -> None:
    text = machine_id(group, name, subscription)
    found = MachineId.parse(text)
    assert (found.resource_group, found.name, found.text) == (group, name, text)
    assert is_machine_key(found.key)
    assert MachineId.parse(f"/SUBSCRIPTIONS{text.removeprefix('/subscriptions')}") == found


def test_two_machines_of_azure_are_two_and_two_spellings_of_one_are_one() -> None:
    groesse, other_case = MachineId.parse(machine_id(name="vm-größe")), MachineId.parse(machine_id(name="VM-GRÖßE"))
    assert groesse == other_case
    assert groesse.key == other_case.key == "5328242b7f17a988f379fd39"
    assert MachineId.parse(machine_id(name="vm-grösse")) != groesse
    names = [
        "vm-straße",
        "vm-strasse",
        "vm-STRAẞE",
        "vm-kelvin",
        "vm-\N{KELVIN SIGN}elvin",
        "vm-ılk",
        "vm-ilk",
        "vm-İlk",
    ]
    assert len({MachineId.parse(machine_id(name=name)) for name in names}) == len(names)


@given(st.lists(st.tuples(groups, names, subscriptions), min_size=2, max_size=20))
def test_different_machines_have_different_keys(parts: list[tuple[str, str, str]]) -> None:
    machines = [MachineId.parse(machine_id(*each)) for each in parts]
    assert len({machine.key for machine in machines}) == len({machine.folded for machine in machines})


def test_an_id_differs_from_its_text() -> None:
    assert MachineId.parse(machine_id()) != machine_id()


HOSTILE = [
    "'",
    '"',
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    "/",
    "\\",
    "..",
    "../",
    "|",
    ";",
    "%2e%2e",
    "%",
    "?",
    "#",
    "&",
    "=",
    "*",
    "`",
    "$",
    "{",
    "<",
    "@",
    ",",
    ":",
    "\u202e",
    "\u2028",
]


@given(st.sampled_from(HOSTILE), st.integers(0, 200), names, groups)
def test_hostile_characters_are_refused_wherever_they_stand(bad: str, place: int, name: str, group: str) -> None:
    text = machine_id(group, name)
    at = place % (len(text) + 1)
    with pytest.raises(ValueError, match="not a machine id"):
        MachineId.parse(text[:at] + bad + text[at:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web-01",
        machine_id() + "/",
        machine_id() + "\n",
        "\n" + machine_id(),
        machine_id(name=""),
        machine_id(group=""),
        machine_id(group="rg."),
        machine_id(group="."),
        machine_id(name="."),
        machine_id(name="a..b"),
        machine_id(group="a" * 91),
        machine_id(name="a" * 66),
        machine_id(subscription="11111111222243338444555555555555"),
        machine_id(subscription="gggggggg-2222-4333-8444-555555555555"),
        machine_id() + "/extensions/x",
        machine_id().replace("virtualMachines", "virtualMachineScaleSets"),
        machine_id().replace("Microsoft.Compute", "MicrosoftxCompute"),
        machine_id() + " | project secrets",
        machine_id().replace("subscriptions", "subſcriptions"),
    ],
)
def test_what_is_no_machine_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a machine id"):
        MachineId.parse(text)


@given(st.text(max_size=300))
def test_reading_any_text_as_an_id_is_an_answer_or_a_refusal(text: str) -> None:
    for read in (MachineId.parse, RunId.parse):
        try:
            assert str(read(text)) == text
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("monthly", True),
        ("a", True),
        ("0-9", True),
        ("a" * 32, True),
        ("a" * 33, False),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("Monthly", False),
        ("a_b", False),
        ("a b", False),
        ("monthly\n", False),
        ("ä", False),
        ("../a", False),
    ],
)
def test_policy_names_are_safe_in_urls_and_keys(name: str, good: bool) -> None:
    assert is_policy_name(name) is good


policy_names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
moments = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(moments, policy_names, st.from_regex(r"([0-9a-f]{8})?", fullmatch=True))
def test_a_run_id_is_read_back(at: datetime, policy: str, suffix: str) -> None:
    built = RunId.of(at, policy, suffix)
    read = RunId.parse(built.text)
    assert read == built
    assert read.at == at.replace(microsecond=0)
    assert re.fullmatch(r"[A-Za-z0-9~-]+", read.row_key)


def test_two_triggers_of_one_occurrence_build_one_id() -> None:
    at = datetime(2026, 11, 10, 19, 0, tzinfo=UTC)
    berlin = at.astimezone(timezone(timedelta(hours=1))) + timedelta(microseconds=5)
    assert RunId.of(at, "monthly").text == RunId.of(berlin, "monthly").text == "20261110T190000Z-monthly"


@given(st.lists(moments, min_size=2, max_size=10))
def test_rows_of_runs_sort_newest_first(at: list[datetime]) -> None:
    runs = sorted((RunId.of(moment, "monthly") for moment in at), key=lambda run: run.row_key)
    assert [run.at for run in runs] == sorted((run.at for run in runs), reverse=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "monthly",
        "20261110T190000Z",
        "20261110T190000Z-",
        "20261110T190000Z-a-",
        "20261110T190000Z-Monthly",
        "20261310T190000Z-monthly",
        "20260230T190000Z-monthly",
        "20261110T250000Z-monthly",
        "20261110T190000Z-monthly\n",
        "20261110T190000Z-monthly/..",
        "20261110T190000Z-monthly' or 1 eq 1",
        "20261110T190000Z-" + "a" * 90,
        "٢٠٢٦1110T190000Z-monthly",
    ],
)
def test_what_is_no_run_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        RunId.parse(text)


@pytest.mark.parametrize("text", ["", "a" * 23, "a" * 25, "A" * 24, "g" * 24, "a" * 24 + "\n", "'" * 24])
def test_an_invalid_machine_key_is_refused(text: str) -> None:
    assert not is_machine_key(text)


ARC = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc/providers/Microsoft.HybridCompute/machines/srv-01"


def test_the_id_of_an_arc_machine_is_one_of_a_machine() -> None:
    found = MachineId.parse(ARC)
    assert (found.subscription_id, found.resource_group, found.name) == (SUBSCRIPTION, "rg-arc", "srv-01")
    assert found.machine_type is MachineType.ARC
    assert found == MachineId.parse(ARC.upper().replace("/SUBSCRIPTIONS", "/subscriptions"))
    assert found.key != MachineId.parse(ARC.replace("HybridCompute/machines", "Compute/virtualMachines")).key


def test_only_a_virtual_machine_of_azure_is_found_where_one_is_wanted() -> None:
    vm = ARC.replace("HybridCompute/machines", "Compute/virtualMachines")
    assert MachineId.find_vm(vm) == MachineId.parse(vm)
    assert MachineId.find_vm(ARC) is None
    assert MachineId.find_vm("vm-1") is None


@pytest.mark.parametrize("path", ["Microsoft.HybridCompute/virtualMachines", "Microsoft.Compute/machines"])
def test_providers_and_types_are_not_mixed(path: str) -> None:
    assert MachineId.find(ARC.replace("Microsoft.HybridCompute/machines", path)) is None


def test_the_resource_types_are_those_of_azure() -> None:
    assert [each.full_type for each in MachineType] == [
        "microsoft.compute/virtualmachines",
        "microsoft.hybridcompute/machines",
    ]
