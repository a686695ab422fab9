"""``patchwave plan``: from files, and from a service; every output, and everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from starlette.responses import JSONResponse

from local import ROOT
from patchwave.domain.planning.plan import Makespan, Plan, PlannedMachine, PlannedRing
from tests.cli.conftest import Patchwave, Result
from tests.cli.service import Service, problem

EXAMPLES = ROOT / "examples"
FLEET, POLICY = str(EXAMPLES / "fleets" / "rollout.json"), str(EXAMPLES / "policies" / "rollout.yaml")
DEMO = str(EXAMPLES / "fleets" / "demo.json")
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers/Microsoft.Compute"


def planned(name: str, start: float = 0, **changes: Any) -> PlannedMachine:
    fields: dict[str, Any] = {"ring": "all", "phase": 1, "lane": "westeurope", "wave": 1}
    return PlannedMachine(
        id=f"{GROUP}/virtualMachines/{name}",
        predicted_start=start,
        predicted_end=start + 600,
        **(fields | changes),
    )


def document(*machines: PlannedMachine) -> dict[str, Any]:
    """A plan as the service answers with it."""
    ring = PlannedRing(name="all", machines=len(machines), phases=[["westeurope"]])
    makespan = Makespan(predicted_seconds=1200, lower_bound_seconds=600)
    return Plan(policy="monthly", rings=[ring], machines=list(machines), makespan=makespan).to_wire()


@pytest.fixture
def anything(tmp_path: Path) -> str:
    """A policy for every machine, two at a time."""
    path = tmp_path / "anything.yaml"
    path.write_text("scope: {osTypes: [Windows, Linux]}\nmaxConcurrent: 2\n")
    return str(path)


class TestOffline:
    def test_json_is_the_documented_format(self, patchwave: Patchwave, service: Service):
        result = patchwave("plan", "--fleet", FLEET, "--policy", POLICY, "-o", "json")
        assert (result.code, result.errors) == (0, "")
        assert Plan.model_validate(result.document).to_wire() == result.document
        assert (result.document["version"], result.document["policy"]) == (1, "rollout")
        assert len(result.document["machines"]) == 14
        assert service.requests == []

    def test_the_same_files_give_the_same_plan(self, patchwave: Patchwave):
        first, second = (patchwave("plan", "--fleet", DEMO, "-p", POLICY, "-o", "json").output for _ in range(2))
        assert first == second

    def test_table(self, patchwave: Patchwave):
        output = patchwave("plan", "--fleet", FLEET, "--policy", POLICY).output
        for text in (
            "14 machines in 2 rings",
            "uksouth beside westeurope; then northeurope",
            "update domain 0 of av-sql",
            "moves to new hardware until Friday",
            "1 hold_tag, 1 no_pending_patches, 1 not_running",
        ):
            assert text in output, text

    def test_the_hours_of_each_zone(self, patchwave: Patchwave, tmp_path: Path):
        policy, fleet = tmp_path / "night.yaml", tmp_path / "fleet.json"
        policy.write_text(
            "scope: {osTypes: [Windows]}\nschedule: {recurrence: second Tuesday, time: offPeak, timeZone: machine}\n"
        )
        clock = {"osProfile": {"windowsConfiguration": {"timeZone": "Tokyo Standard Time"}}}
        machines = [
            {"id": f"{GROUP}/virtualMachines/{name}", "location": location, "osType": "Windows"} | more
            for name, location, more in (("a", "westus2", {}), ("b", "westus2", clock), ("c", "moonbase", {}))
        ]
        fleet.write_text(json.dumps(machines))
        output = patchwave("plan", "--fleet", str(fleet), "--policy", str(policy)).output
        [tokyo] = [line for line in output.splitlines() if line.startswith("Asia/Tokyo")]
        [seattle] = [line for line in output.splitlines() if line.startswith("America/Los_Angeles")]
        assert "13:00" in tokyo
        assert "21:00" in tokyo
        assert "06:00" in seattle or "05:00" in seattle, "by the season"
        assert "1 unknown_time_zone" in output

    def test_timeline(self, patchwave: Patchwave):
        lines = patchwave("plan", "--fleet", FLEET, "--policy", POLICY, "-o", "timeline").output.splitlines()
        (first,) = [line for line in lines if "sql-neu-2" in line]
        (last,) = [line for line in lines if "sql-neu-3" in line]
        assert first.index("━") < first.rindex("━") < last.index("━") + 1 < last.rindex("━")
        assert "0:00" in "".join(lines)

    def test_the_policy_of_standard_input(self, patchwave: Patchwave, monkeypatch: pytest.MonkeyPatch, anything: str):
        import io

        monkeypatch.setattr("sys.stdin", io.StringIO(Path(anything).read_text()))
        assert patchwave("plan", "--fleet", FLEET, "--policy", "-", "-o", "json").document["policy"] == "adhoc"

    def test_values_can_be_changed(self, patchwave: Patchwave):
        plan = patchwave("plan", "--fleet", FLEET, "-p", POLICY, "--set", "rings=null", "-o", "json").document
        assert [ring["name"] for ring in plan["rings"]] == ["all"]

    def test_machines_outside_of_the_scope_are_counted(self, patchwave: Patchwave):
        result = patchwave("plan", "--fleet", DEMO, "--policy", POLICY)
        assert "84 of 84 machines are outside of the policy's scope" in result.errors
        assert "0 machines" in result.output

    def test_a_typical_fleet(self, patchwave: Patchwave, tmp_path: Path, anything: str):
        fleet = tmp_path / "fleet.json"
        entry = {"id": f"{GROUP}/virtualMachines/vm", "location": "westeurope", "colour": "red"}
        other = entry | {"id": str(entry["id"]).upper(), "zones": ["2"]}
        fleet.write_text(json.dumps({"value": [entry, {"id": 5}, other]}))
        result = patchwave("plan", "--fleet", str(fleet), "--policy", anything, "-o", "json")
        assert result.code == 0
        assert len(result.document["machines"]) == 1
        assert "value[1] is left out: 5 is not the id of a machine" in result.errors
        assert "value[2] is value[0] again" in result.errors

    @pytest.mark.parametrize("output", ["json", "table", "timeline"])
    def test_characters_that_cannot_be_written(self, patchwave: Patchwave, tmp_path: Path, anything: str, output: str):
        fleet, svg = tmp_path / "fleet.json", tmp_path / "plan.svg"
        tags = {"cluster": "half \ud800 \uffff \x1b[2J <b>"}
        entries = [{"id": f"{GROUP}/virtualMachines/vm{n}", "location": "eastus", "tags": tags} for n in (1, 2)]
        fleet.write_text(json.dumps([*entries, {"id": "\ud800"}]))
        changes = ["--set", "mutuallyExclusiveTag=cluster", "--svg", str(svg), "-o", output]
        result = patchwave("plan", "--fleet", str(fleet), "--policy", anything, *changes)
        assert result.code == 0, result.errors
        assert "\x1b" not in result.output
        assert "<b>" in "".join(ElementTree.parse(svg).getroot().itertext())

    def test_ids_that_the_fleet_does_not_hold(self, patchwave: Patchwave, tmp_path: Path):
        missing = f"{GROUP}/virtualMachines/gone"
        policy = tmp_path / "one.json"
        policy.write_text(json.dumps({"scope": {"machineIds": [missing]}}))
        plan = patchwave("plan", "--fleet", FLEET, "--policy", str(policy), "-o", "json").document
        assert [(each["id"], each["reason"]) for each in plan["excluded"]] == [(missing, "not_found")]


class TestAgainst:
    def test_nothing_has_changed(self, patchwave: Patchwave, tmp_path: Path):
        earlier = tmp_path / "plan.json"
        earlier.write_text(patchwave("plan", "--fleet", FLEET, "-p", POLICY, "-o", "json").output)
        result = patchwave("plan", "--fleet", FLEET, "-p", POLICY, "--against", str(earlier))
        assert "Nothing has changed since the earlier plan." in result.output

    def test_the_diff(self, patchwave: Patchwave, tmp_path: Path):
        before, after = tmp_path / "before.json", tmp_path / "after.json"
        before.write_text(patchwave("plan", "--fleet", FLEET, "-p", POLICY, "-o", "json").output)
        changed = ["plan", "--fleet", FLEET, "-p", POLICY, "--set", "startStopped=true", "--against", str(before)]
        after.write_text(patchwave(*changed, "-o", "json").output)
        diff = json.loads(after.read_text())["diff"]
        assert [each["id"].rpartition("/")[2] for each in diff["added"]] == ["legacy-neu-1"]
        table = patchwave(*changed).output
        assert "planned now" in table
        # What was printed with a diff is a plan as well.
        again = patchwave("plan", "--fleet", FLEET, "-p", POLICY, "--against", str(after), "-o", "timeline").output
        assert "left out now" in again

    @pytest.mark.parametrize("text", ["{", "[]", '{"version": 2}', '{"version": 1, "policy": "x"}'])
    def test_what_is_no_plan(self, patchwave: Patchwave, tmp_path: Path, text: str):
        earlier = tmp_path / "plan.json"
        earlier.write_text(text)
        result = patchwave("plan", "--fleet", FLEET, "-p", POLICY, "--against", str(earlier))
        assert (result.code, str(earlier) in result.errors) == (2, True)


class TestDrawing:
    def test_svg_is_well_formed_and_draws_every_machine(self, patchwave: Patchwave, tmp_path: Path):
        file = tmp_path / "plan.svg"
        assert patchwave("plan", "--fleet", FLEET, "-p", POLICY, "--svg", str(file)).code == 0
        root = ElementTree.parse(file).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
        assert sum("wave" in title for title in titles) == 14

    def test_a_file_that_cannot_be_written(self, patchwave: Patchwave, tmp_path: Path):
        result = patchwave("plan", "--fleet", FLEET, "-p", POLICY, "--svg", str(tmp_path / "none" / "plan.svg"))
        assert (result.code, "cannot be written" in result.errors) == (2, True)


class TestLive:
    def test_a_policy_by_its_name(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(document(planned("web"), planned("sql", 600)))]
        result = patchwave("plan", "--live", "--policy", "monthly", "--set", "maxConcurrent=1", "-o", "json")
        assert result.document == document(planned("web"), planned("sql", 600))
        (asked,) = service.asked("POST", "/api/plans")
        assert asked["body"] == {"policy": "monthly", "overrides": {"maxConcurrent": 1}}

    def test_a_policy_from_a_file(self, patchwave: Patchwave, service: Service, anything: str):
        service.answers = [JSONResponse(document())]
        assert "0 machines" in patchwave("plan", "--live", "--policy", anything).output
        (asked,) = service.asked("POST", "/api/plans")
        assert asked["body"]["policy"]["maxConcurrent"] == 2

    def test_what_the_service_refuses(self, patchwave: Patchwave, service: Service):
        service.answers = [problem(422, "Unprocessable Content", "The policy is for more than 5,000 machines")]
        result = patchwave("plan", "--live", "--policy", "monthly")
        assert (result.code, "more than 5,000 machines" in result.errors) == (2, True)

    def test_a_plan_of_another_version(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(document() | {"version": 2})]
        result = patchwave("plan", "--live", "--policy", "monthly")
        assert (result.code, "another version" in result.errors) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policy", POLICY], "Give --fleet FILE"),
        (["--policy", POLICY, "--fleet", FLEET, "--live"], "Give --fleet FILE"),
        (["--policy", "-", "--fleet", "-"], "Only one of"),
        (["--policy", POLICY, "--fleet", "nowhere.json"], "cannot be read"),
        (["--policy", "nowhere.yaml", "--fleet", FLEET], "cannot be read"),
        (["--policy", FLEET, "--fleet", FLEET], "is no valid policy"),
        (["--policy", POLICY, "--fleet", POLICY], "is not JSON"),
        (["--policy", POLICY, "--fleet", FLEET, "--set", "maxConcurrent=0"], "maxConcurrent"),
    ],
)
def test_what_cannot_be_planned(patchwave: Patchwave, arguments: list[str], complaint: str):
    result: Result = patchwave("plan", *arguments)
    assert result.code == 2
    assert complaint in result.errors
