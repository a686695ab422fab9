"""The changes between two plans: every machine is in at most one list, and in none when nothing has changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.planning.plan import ExcludedMachine, Makespan, Plan, PlannedMachine
from patchwave.domain.planning.plan_diff import compare


def machine(name: str, *, ring: str = "all", wave: int = 1, start: float = 0) -> PlannedMachine:
    return PlannedMachine(
        id=name, ring=ring, phase=1, lane="westeurope", wave=wave, predicted_start=start, predicted_end=start + 600
    )


def excluded(name: str) -> ExcludedMachine:
    return ExcludedMachine(id=name, reason="no_pending_patches", detail="Nothing is pending.")


def plan(*machines: PlannedMachine, without: tuple[str, ...] = ()) -> Plan:
    return Plan(
        policy="monthly",
        machines=list(machines),
        excluded=[excluded(name) for name in without],
        makespan=Makespan(predicted_seconds=600, lower_bound_seconds=600),
    )


def test_a_plan_against_itself_is_empty():
    same = plan(machine("a"), machine("b", wave=2, start=600), without=("c",))
    assert compare(same, same).is_empty


def test_each_kind_of_change():
    before = plan(machine("a"), machine("b"), machine("c"), machine("d"), machine("e"), without=("f", "g"))
    after = plan(
        machine("A"), machine("b", wave=2), machine("c", start=600), machine("f"), machine("h"), without=("d", "G")
    )
    diff = compare(before, after)
    assert [added.id for added in diff.added] == ["f", "h"]
    assert diff.removed == ["e"]
    assert [left_out.id for left_out in diff.excluded] == ["d"]
    assert [(each.id, each.before.wave, each.after.wave) for each in diff.moved] == [("b", 1, 2)]
    assert [(late.id, late.before, late.after) for late in diff.retimed] == [("c", 0, 600)]


def test_a_difference_of_seconds_is_no_change():
    assert compare(plan(machine("a")), plan(machine("a", start=59))).is_empty
    assert not compare(plan(machine("a")), plan(machine("a", start=60))).is_empty


_NAMES = st.sets(st.sampled_from("abcdefgh"))


@given(_NAMES, _NAMES, _NAMES, _NAMES, st.integers(1, 2))
def test_a_machine_is_in_at_most_one_list(
    planned: set[str], left_out: set[str], planned_later: set[str], left_out_later: set[str], wave: int
):
    before = plan(*map(machine, sorted(planned)), without=tuple(sorted(left_out - planned)))
    after = plan(
        *(machine(name, wave=wave) for name in sorted(planned_later)),
        without=tuple(sorted(left_out_later - planned_later)),
    )
    diff = compare(before, after)
    named = [each.id for each in (*diff.added, *diff.excluded, *diff.moved, *diff.retimed)] + diff.removed
    assert len(named) == len(set(named))
    unchanged = {name for name in planned & planned_later if wave == 1}
    assert not unchanged & set(named)
    assert set(named) <= planned | left_out | planned_later | left_out_later
