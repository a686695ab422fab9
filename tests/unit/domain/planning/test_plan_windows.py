"""Plans of machines that read their own clocks: one window per time zone, and every rule over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.calendar.local_window import LocalWindow
from patchwave.domain.calendar.region_time_zones import REGION_ZONES
from patchwave.domain.core.region_pairs import KNOWN_PAIRS
from patchwave.domain.fleet.discovery import read_row
from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.dry_run import FoundMachine, plan_dry_run
from patchwave.domain.planning.plan import Plan
from patchwave.domain.planning.plan_windows import PlanWindows, window_permit, zone_of_permits
from patchwave.domain.planning.planner import PlanResult, make_plan
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy, parse_policy

NIGHT = LocalWindow(day=date(2026, 12, 8), time="offPeak", window=timedelta(hours=8))
MORNING = datetime(2026, 12, 8, 8, tzinfo=UTC)
TOPOLOGY = Topology.of(KNOWN_PAIRS.items())
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers/Microsoft.Compute"


def machine(name: str, region: str, zone: str | None = None, **fields: Any) -> PlannerMachine:
    own: dict[str, Any] = {
        "os_type": "Linux",
        "location": region,
        "time_zone": REGION_ZONES[region] if zone is None else zone,
    }
    return PlannerMachine(id=f"{GROUP}/virtualMachines/{name}", key=name, **(own | fields))


def policy(**fields: Any) -> Policy:
    schedule = {"recurrence": "second Tuesday", "time": "offPeak", "timeZone": "machine"}
    return parse_policy({"name": "night", "scope": {"osTypes": ["Linux"]}, "schedule": schedule} | fields)


def planned(machines: list[PlannerMachine], now: datetime = MORNING, **fields: Any) -> PlanResult:
    windows = PlanWindows.of(NIGHT, [each.time_zone for each in machines], now)
    return make_plan(machines, policy(**fields), TOPOLOGY, windows=windows)


def starts(plan: Plan) -> Mapping[str, datetime]:
    assert plan.begins_at is not None
    return {
        each.id.rpartition("/")[2]: plan.begins_at + timedelta(seconds=each.predicted_start) for each in plan.machines
    }


def test_each_machine_starts_in_the_night_of_its_own_clock() -> None:
    plan = planned(
        [
            machine("sydney", "australiaeast"),
            machine("dublin", "northeurope"),
            machine("seattle", "westus2"),
            machine("traveller", "westus2", "Asia/Tokyo"),
        ]
    ).plan
    assert plan.begins_at == datetime(2026, 12, 8, 11, tzinfo=UTC), "when the first window opens"
    assert starts(plan) == {
        "sydney": datetime(2026, 12, 8, 11, tzinfo=UTC),
        "traveller": datetime(2026, 12, 8, 13, tzinfo=UTC),
        "dublin": datetime(2026, 12, 8, 22, tzinfo=UTC),
        "seattle": datetime(2026, 12, 9, 6, tzinfo=UTC),
    }
    assert [
        (each.time_zone, f"{each.opens_at:%d %H}", f"{each.closes_at:%d %H}", each.machines) for each in plan.time_zones
    ] == [
        ("Australia/Sydney", "08 11", "08 19", 1),
        ("Asia/Tokyo", "08 13", "08 21", 1),
        ("Europe/Dublin", "08 22", "09 06", 1),
        ("America/Los_Angeles", "09 06", "09 14", 1),
    ]
    assert plan.makespan.predicted_seconds == plan.makespan.lower_bound_seconds == 19 * 3600 + 1200
    assert plan.notes == []
    [dublin] = [each for each in plan.machines if each.id.endswith("dublin")]
    assert "Europe/Dublin: from 2026-12-08 22:00 to 2026-12-09 06:00 UTC" in dublin.placement_reasons


def test_a_plan_in_the_middle_of_the_night_begins_now() -> None:
    now = datetime(2026, 12, 8, 14, tzinfo=UTC)
    plan = planned([machine("sydney", "australiaeast"), machine("dublin", "northeurope")], now).plan
    assert starts(plan) == {"sydney": now, "dublin": datetime(2026, 12, 8, 22, tzinfo=UTC)}


def test_regions_of_a_pair_share_a_phase_and_never_run_together() -> None:
    """In phases, the second region of each pair on earth would wait for the first of all others."""
    pair = [machine(f"east{n}", "eastus") for n in range(3)] + [machine(f"west{n}", "westus") for n in range(3)]
    found = planned([*pair, machine("sydney", "australiaeast")], limits={"region": 1})
    assert [ring.phases for ring in found.plan.rings] == [[["australiaeast", "eastus", "westus"]]]
    slices = [
        (each.lane, each.predicted_start, each.predicted_end) for each in found.plan.machines if "us" in each.lane[-2:]
    ]
    east = max(end for lane, _, end in slices if lane == "eastus")
    assert all(start >= east for lane, start, _ in slices if lane == "westus")
    assert starts(found.plan)["east0"] == datetime(2026, 12, 9, 3, tzinfo=UTC)
    assert starts(found.plan)["west0"] == datetime(2026, 12, 9, 6, tzinfo=UTC), "its own window opens later still"
    [west] = [each for each in found.plan.machines if each.id.endswith("west0")]
    assert "never beside eastus" in west.placement_reasons


def test_phases_of_the_policy_are_kept_and_those_that_come_too_late_are_counted() -> None:
    machines = [machine("seattle", "westus2"), machine("sydney", "australiaeast"), machine("tokyo", "japaneast")]
    plan = planned(machines, phases=[["westus2"], ["australiaeast", "japaneast"]]).plan
    assert [ring.phases for ring in plan.rings] == [[["westus2"], ["australiaeast", "japaneast"]]]
    assert [each.late_machines for each in plan.time_zones] == [1, 1, 0]
    assert plan.notes[-1] == (
        "2 machines are reached only when the window of their time zone is over: they are skipped"
        " (Australia/Sydney, Asia/Tokyo)."
    )


def test_a_ring_waits_for_the_one_before_it_in_every_zone() -> None:
    machines = [machine("canary", "westus2", tags={"ring": "canary"}), machine("sydney", "australiaeast")]
    rings = [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "rest", "after": "canary"}]
    schedule = policy().to_wire()["schedule"] | {"continueInNextWindow": True}
    plan = planned(machines, rings=rings, schedule=schedule).plan
    found = starts(plan)
    assert found["sydney"] >= found["canary"] + timedelta(minutes=20)
    assert "they go on in the next one (Australia/Sydney)." in plan.notes[-1]


@pytest.mark.parametrize("location", ["", "moonbase"])
def test_a_machine_whose_clock_is_not_known_is_left_out_with_the_reason(location: str) -> None:
    lost = machine("lost", "westus2", "", location=location)
    plan = planned([machine("seattle", "westus2"), lost]).plan
    [excluded] = plan.excluded
    assert (excluded.reason, excluded.outcome.outcome) == ("unknown_time_zone", "skipped")
    assert f"the region {location or '(none)'} is not in the table of 2025-09-23" in excluded.detail
    assert len(plan.machines) == 1


def test_a_fleet_without_a_known_clock_is_left_out_as_a_whole() -> None:
    plan = planned([machine("lost", "westus2", "", location="moonbase")]).plan
    assert (len(plan.machines), len(plan.excluded), plan.time_zones) == (0, 1, [])


def test_waves_of_a_region_follow_the_windows_of_its_machines() -> None:
    machines = [machine("a", "westus2"), machine("b", "westus2", "Asia/Tokyo"), machine("c", "westus2")]
    plan = planned(machines, errorBudget={"wave": 1}).plan
    assert {each.id[-1]: each.wave for each in plan.machines} == {"b": 1, "a": 2, "c": 2}
    assert starts(plan)["b"] == datetime(2026, 12, 8, 13, tzinfo=UTC)


def test_the_zone_is_read_from_the_permits() -> None:
    texts = [window_permit("Asia/Tokyo").text, Permit("zones:japaneast", 1, "2").text, Permit("run", 5).text]
    assert zone_of_permits(texts) == "Asia/Tokyo"
    assert zone_of_permits(texts[1:]) == ""


FLEETS = st.lists(
    st.tuples(st.sampled_from(sorted(REGION_ZONES)), st.sampled_from(["", *sorted(set(REGION_ZONES.values()))])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(fleet=FLEETS, cap=st.integers(1, 20), ramp=st.booleans(), barrier=st.booleans(), hour=st.integers(0, 30))
def test_no_machine_starts_before_its_window_and_every_rule_holds_over_all_zones(
    fleet: list[tuple[str, str]], cap: int, ramp: bool, barrier: bool, hour: int
) -> None:
    machines = [machine(f"m{n:02}", region, zone or None) for n, (region, zone) in enumerate(fleet)]
    budget = {"errorBudget": {"wave": 1}} if barrier else {}
    now = MORNING + timedelta(hours=hour)
    plan = planned(machines, now, maxConcurrent=cap, ramp=ramp, **budget).plan
    assert len(plan.machines) == len(machines)
    assert plan.begins_at is not None
    zones = {each.key: each.time_zone for each in machines}
    for key, at in starts(plan).items():
        assert at >= NIGHT.hours(zones[key]).opens_at
    events = sorted({each.predicted_start for each in plan.machines})
    conflicts = {(one, other) for one, other in KNOWN_PAIRS.items()} | {(b, a) for a, b in KNOWN_PAIRS.items()}
    for second in events:
        running = [each for each in plan.machines if each.predicted_start <= second < each.predicted_end]
        assert len(running) <= cap
        lanes = {each.lane for each in running}
        assert not any((one, other) in conflicts for one in lanes for other in lanes if one != other)
    assert plan.makespan.lower_bound_seconds <= plan.makespan.predicted_seconds + 1e-6


@settings(max_examples=20, deadline=None)
@given(fleet=FLEETS, seed=st.randoms(use_true_random=False))
def test_the_order_of_the_machines_changes_nothing(fleet: list[tuple[str, str]], seed: Any) -> None:
    machines = [machine(f"m{n:02}", region, zone or None) for n, (region, zone) in enumerate(fleet)]
    shuffled = list(machines)
    seed.shuffle(shuffled)
    assert planned(shuffled).plan == planned(machines).plan


# --- before anything runs -------------------------------------------------------------------------------------


def found(name: str, location: str, windows: str = "") -> FoundMachine:
    row = {"id": f"{GROUP}/virtualMachines/{name}", "location": location, "osType": "Linux", "windowsTimeZone": windows}
    return FoundMachine(read_row(row))


def test_a_dry_run_is_of_the_occurrence_that_comes_next() -> None:
    machines = [found("dublin", "northeurope"), found("traveller", "northeurope", "Tokyo Standard Time")]
    plan = plan_dry_run(machines, policy(), TOPOLOGY, datetime(2026, 12, 1, 12, tzinfo=UTC)).plan
    assert starts(plan) == {
        "traveller": datetime(2026, 12, 8, 13, tzinfo=UTC),
        "dublin": datetime(2026, 12, 8, 22, tzinfo=UTC),
    }


def test_a_dry_run_is_of_the_occurrence_that_lasts() -> None:
    now = datetime(2026, 12, 8, 23, tzinfo=UTC)
    plan = plan_dry_run([found("dublin", "northeurope")], policy(), TOPOLOGY, now).plan
    assert starts(plan) == {"dublin": now}


def test_a_schedule_that_has_ended_has_a_plan_without_windows() -> None:
    ended = policy(schedule={"recurrence": "2026-11-10", "time": "offPeak", "timeZone": "machine"})
    plan = plan_dry_run([found("dublin", "northeurope")], ended, TOPOLOGY, MORNING).plan
    assert (plan.begins_at, plan.time_zones, len(plan.machines)) == (None, [], 1)
