"""``patchwave fleet`` against a service over HTTP: modes, eligibility, and changes that are planned first."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import JSONResponse

from tests.cli.conftest import Patchwave
from tests.cli.service import Service

CHANGE = "20261121T140000Z-modes-1a2b3c4d"
MACHINE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-1"
SETTINGS = {"osType": "Linux", "patchMode": "ImageDefault", "assessmentMode": "ImageDefault", "bypass": False}


def change(state: str = "planned", to_change: int = 1, **ends: int) -> dict[str, Any]:
    return {
        "id": CHANGE,
        "state": state,
        "wanted": {"patchMode": "AutomaticByPlatform", "assessmentMode": None, "bypass": True},
        "machines": 2,
        "toChange": to_change,
        "countsByEnd": ends,
        "planned": {"actor": "ann", "actorId": "", "reason": "move", "at": "2026-11-21T14:00:00.000Z"},
        "started": None,
        "stopped": None,
        "endedAt": "2026-11-21T14:05:00.000Z" if state in ("completed", "stopped") else None,
        "message": "",
    }


def machines(*ends: str | None) -> dict[str, Any]:
    rows = [
        {
            "id": MACHINE,
            "name": f"vm-{number}",
            "osType": "Linux",
            "before": SETTINGS,
            "end": end,
            "message": f"is {end}",
        }
        for number, end in enumerate(ends)
    ]
    return {"machines": rows, "cursor": None}


def test_modes(patchwave: Patchwave, service: Service):
    found: dict[str, Any] = {
        "counts": {"machines": 1, "byPatcher": {"none": 1}, "mistakes": 1},
        "machines": [
            {
                "name": "vm-1",
                "osType": "Linux",
                "image": "Canonical:UbuntuServer:18.04-LTS:latest",
                "agentVersion": "",
                "settings": SETTINGS,
                "patchedBy": "none",
                "sentence": "The schedule nightly fails [here].",
            }
        ],
        "notes": ["The policy x is not valid any more."],
    }
    service.answers = [JSONResponse(found)]
    result = patchwave("fleet", "modes", "--os", "Linux", "--machine", "a", "--machine", "b", "--patched-by", "none")
    assert result.code == 0
    for part in (
        "ImageDefault",
        "Canonical:UbuntuServer:18.04-LTS ",
        "none",
        "fails [here].",
        "1 machine: none 1",
    ):
        assert part in result.output
    assert "a schedule fails" in result.output
    assert "The policy x is not valid any more." in result.output
    [asked] = service.asked("GET", "/api/fleet/modes")
    assert asked["query"] == {"osType": "Linux", "machine": "a,b", "patchedBy": "none"}


def test_modes_can_be_read_in_80_columns(patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch):
    row: dict[str, Any] = {
        "name": "vm-1",
        "osType": "Linux",
        "image": "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest",
        "agentVersion": "2.11.1.12",
        "settings": SETTINGS,
        "patchedBy": "operating_system",
        "sentence": "What its image brings may patch it, such as unattended-upgrades; Azure does nothing.",
    }
    monkeypatch.setenv("COLUMNS", "80")
    service.answers = [JSONResponse({"counts": {"machines": 1}, "machines": [row]})]
    lines = [line.rstrip() for line in patchwave("fleet", "modes").output.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "vm-1  Linux  operating system"
    assert "  Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2" in lines
    assert len(lines) == 7


def test_eligibility(patchwave: Patchwave, service: Service):
    found: dict[str, Any] = {
        "machines": 3,
        "eligible": 2,
        "unknown": 1,
        "ineligible": [
            {
                "name": "vm-1",
                "osType": "Linux",
                "image": "/subscriptions/s/galleries/a/images/golden",
                "agentVersion": "2.2.45",
                "eligibility": {"obstacles": [{"cause": "old_agent", "sentence": "The agent is old."}]},
            }
        ],
        "unlisted": [
            {
                "name": "vm-2",
                "osType": "Linux",
                "image": "a:b:c:latest",
                "agentVersion": "2.11.1.12",
                "eligibility": {
                    "obstacles": [],
                    "imageSupport": "unknown",
                    "imageNote": "a:b:c is not in the table of 2026-12-01.",
                },
            }
        ],
        "tableReadOn": "2026-12-01",
    }
    service.answers = [JSONResponse(found)]
    result = patchwave("fleet", "eligibility")
    assert result.code == 0
    for part in ("golden", "2.2.45", "The agent is old.", "2 of 3 machines are eligible", "of 1 of them"):
        assert part in result.output
    assert "by the table of images of 2026-12-01" in result.output
    assert "a:b:c is not in the table of 2026-12-01." in result.output
    rows = {line.split()[0]: line for line in result.output.splitlines() if line.startswith("vm-")}
    assert (" no " in rows["vm-1"], " unknown " in rows["vm-2"]) == (True, True)


def test_no_name_is_cut_in_80_columns(patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch):
    name = "batch-reports-of-the-whole-northern-region-02"
    obstacle = {
        "cause": "old_agent",
        "sentence": "The Linux agent is 2.2.45; guest patching needs 2.2.53.1 or newer: update it.",
    }
    row = {"name": name, "osType": "Linux", "image": "a:b:c", "eligibility": {"obstacles": [obstacle]}}
    monkeypatch.setenv("COLUMNS", "80")
    service.answers = [JSONResponse({"machines": 1, "ineligible": [row]})]
    assert name in patchwave("fleet", "eligibility").output.splitlines()


class TestSetMode:
    ARGUMENTS = (
        "fleet",
        "set-mode",
        "--machine",
        MACHINE,
        "--mode",
        "AutomaticByPlatform",
        "--bypass",
        "--actor",
        "ann",
    )

    def test_without_a_yes_it_is_a_dry_run(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(change(refused=1), status_code=201), JSONResponse(machines("refused", None))]
        result = patchwave(*self.ARGUMENTS, "--tag", "env=test", "--max-concurrent", "5")
        assert result.code == 1, "a machine was refused"
        assert "2, 1 to change" in result.output
        assert "is refused" in result.output
        assert "to change" in result.output
        assert f"patchwave fleet mode-change start {CHANGE}" in result.errors
        [asked] = service.asked("POST", "/api/fleet/mode-changes")
        assert asked["body"]["scope"] == {
            "subscriptions": [],
            "resourceGroups": [],
            "locations": [],
            "osTypes": [],
            "machineIds": [MACHINE],
            "scaleSets": [],
            "tags": {"values": {"env": ["test"]}},
        }
        assert (asked["body"]["patchMode"], asked["body"]["bypass"]) == ("AutomaticByPlatform", True)
        assert asked["body"]["assessmentMode"] is None
        assert (asked["body"]["maxConcurrent"], asked["body"]["actor"]) == (5, "ann")
        assert not [each for each in service.requests if str(each["path"]).endswith("/start")]

    def test_with_a_yes_it_is_carried_out_and_waited_for(self, patchwave: Patchwave, service: Service):
        service.answers = [
            JSONResponse(change(), status_code=201),
            JSONResponse(change("running"), status_code=202),
            JSONResponse(change("completed", changed=1, unchanged=1)),
            JSONResponse(machines("changed", "unchanged")),
        ]
        result = patchwave(*self.ARGUMENTS, "--yes", "-r", "move")
        assert result.code == 0, result.errors
        assert "completed" in result.output
        assert "changed 1, unchanged 1" in result.output
        [asked] = service.asked("POST", f"/api/fleet/mode-changes/{CHANGE}/start")
        assert asked["body"] == {"reason": "move", "actor": "ann"}

    def test_nothing_to_change_is_no_reason_to_start(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(change(to_change=0, unchanged=2), status_code=201), JSONResponse(machines())]
        result = patchwave(*self.ARGUMENTS, "--yes")
        assert (result.code, len(service.requests)) == (0, 2)

    def test_as_json(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(change(), status_code=201)]
        assert patchwave(*self.ARGUMENTS, "-o", "json").document == change()

    def test_no_bypass(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(change(), status_code=201), JSONResponse(machines(None))]
        patchwave("fleet", "set-mode", "--machine", MACHINE, "--no-bypass", "--assessment-mode", "AutomaticByPlatform")
        body = service.requests[0]["body"]
        assert (body["patchMode"], body["assessmentMode"], body["bypass"]) == (None, "AutomaticByPlatform", False)


class TestModeChange:
    def test_list(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse({"changes": [change("stopped", changed=1, canceled=1)], "cursor": None})]
        output = patchwave("fleet", "mode-change", "list").output
        for part in (CHANGE, "stopped", "2026-11-21 14:00:00Z", "ann", "changed 1, canceled 1"):
            assert part in output

    def test_show(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(change("running")), JSONResponse(machines("failed"))]
        output = patchwave("fleet", "mode-change", "show", CHANGE, "--end", "failed").output
        assert "is failed" in output
        assert "planned" in output
        assert service.requests[1]["query"]["end"] == "failed"

    @pytest.mark.parametrize("what", ["start", "stop"])
    def test_orders(self, patchwave: Patchwave, service: Service, what: str):
        service.answers = [JSONResponse(change("running"), status_code=202)]
        result = patchwave("fleet", "mode-change", what, CHANGE, "-r", "why", "--actor", "ben")
        assert result.code == 0
        [asked] = service.asked("POST", f"/api/fleet/mode-changes/{CHANGE}/{what}")
        assert asked["body"] == {"reason": "why", "actor": "ben"}

    def test_audit(self, patchwave: Patchwave, service: Service):
        line = {"at": "2026-11-21T14:00:00.000Z", "action": "mode_change_planned", "actor": "ann", "detail": None}
        service.answers = [JSONResponse({"audit": [line], "cursor": None})]
        assert "mode_change_planned" in patchwave("fleet", "mode-change", "audit", CHANGE).output


STATUS: dict[str, Any] = {
    "level": "fleet",
    "assessment": {"resultStatus": "", "criticalAndSecurity": 3, "other": 4, "ageHours": 5.2, "errors": []},
    "installation": {
        "resultStatus": "Failed",
        "startedAt": "2026-11-20T22:00:00.000Z",
        "endedAt": "2026-11-20T22:40:00.000Z",
        "installed": 12,
        "failed": 1,
        "pending": 0,
        "startedBy": "User",
        "errors": [{"code": "OPERATION_FAILED", "message": "curl is [broken]"}],
    },
    "rebootPending": True,
    "extension": {"type": "Microsoft.CPlat.Core.LinuxPatchExtension", "version": "1.6", "state": "Succeeded"},
}
STANDING: dict[str, Any] = {
    "id": MACHINE,
    "name": "vm-1",
    "powerState": "running",
    "settings": SETTINGS,
    "patchedBy": "policy",
    "sentence": "Manual: nothing patches it by itself.",
    "status": STATUS,
    "enablement": {"state": "in_progress", "sentence": "AutomaticByPlatform is being enabled."},
    "nextPatching": [
        {"source": "policy", "name": "monthly", "at": "2026-12-08T22:00:00.000Z"},
        {"source": "platform", "name": "", "at": None},
    ],
}
COUNTS: dict[str, Any] = {
    "machines": 2,
    "pending": 1,
    "rebootPending": 1,
    "notAssessed": 1,
    "byResult": {"none": 1, "Failed": 1},
    "byEnablement": {"in_progress": 2},
}


class TestStatus:
    def test_a_fleet(self, patchwave: Patchwave, service: Service):
        bare = {"name": "vm-2", "status": {"level": "fleet"}, "nextPatching": []}
        found = {"counts": COUNTS, "machines": [STANDING, bare], "notes": ["One [note]."], "cursor": "vm-2"}
        service.answers = [JSONResponse(found)]
        options = ("--policy", "monthly", "--enablement", "in_progress", "--enablement", "failed", "--reboot-pending")
        result = patchwave("fleet", "status", *options, "--limit", "2")
        assert result.code == 0
        for part in (
            "3 critical/security, 4 other",
            "5 h ago",
            "Failed: 12 installed, 1 failed, 2026-11-20",
            "in progress",
            "monthly 2026-12-08 22:00:00Z",
            "nothing",
            "2 machines: 1 with critical or security updates, 1 reboot pending, 1 not assessed",
            "One [note].",
            "the first 2 are shown",
        ):
            assert part in result.output, part
        [asked] = service.asked("GET", "/api/fleet/status")
        assert asked["query"] == {
            "policy": "monthly",
            "enablement": "in_progress,failed",
            "rebootPending": "true",
            "limit": "2",
        }

    def test_one_machine_is_shown_with_all_of_it(self, patchwave: Patchwave, service: Service):
        machine = STANDING | {"status": STATUS | {"level": "machine"}}
        service.answers = [JSONResponse({"counts": COUNTS, "machines": [machine], "notes": []})]
        result = patchwave("fleet", "status", "--machine", MACHINE)
        assert result.code == 0
        for part in (
            "the machine's instance view",
            "in progress: AutomaticByPlatform is being enabled.",
            "Microsoft.CPlat.Core.LinuxPatchExtension 1.6 Succeeded",
            "2026-11-20 22:00:00Z to 2026-11-20 22:40:00Z, result Failed, started by User",
            "OPERATION_FAILED: curl is [broken]",
            "monthly 2026-12-08 22:00:00Z",
            "platform at a time that Azure does not tell",
        ):
            assert part in result.output, part

    def test_it_can_be_read_in_80_columns(
        self, patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("COLUMNS", "80")
        service.answers = [JSONResponse({"counts": COUNTS, "machines": [STANDING], "notes": []})]
        lines = [line.rstrip() for line in patchwave("fleet", "status").output.splitlines()]
        assert max(map(len, lines)) <= 80
        assert lines[0] == "vm-1  pending"
        assert "  monthly 2026-12-08 22:00:00Z" in lines

    def test_json_is_what_the_service_answered(self, patchwave: Patchwave, service: Service):
        found: dict[str, Any] = {"counts": COUNTS, "machines": [STANDING], "notes": [], "cursor": None}
        service.answers = [JSONResponse(found)]
        assert patchwave("fleet", "status", "-o", "json").document == found


def stuck(number: int, group: str = "rg-web") -> dict[str, Any]:
    name = f"web-{number}"
    return {
        "id": f"/subscriptions/s/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}",
        "key": f"{number:024x}",
        "name": name,
        "resourceGroup": group,
        "runId": CHANGE,
        "outcome": "skipped",
        "reason": "needs_person",
        "message": "It failed in 3 windows in a row.",
        "lastWindow": {
            "failedWindows": 3,
            "since": "2026-09-08T18:00:00.000Z",
            "reason": "patches_failed",
            "error": "E1: no space",
        },
        "isLeftOut": True,
    }


def test_machines_that_need_a_person(patchwave: Patchwave, service: Service):
    service.answers = [JSONResponse({"machines": [stuck(2), stuck(1)], "cursor": None})]
    output = " ".join(patchwave("fleet", "needs-person").output.split())
    assert output.index("web-1") < output.index("web-2")
    for part in ("2026-09-08 18:00:00Z", "patches_failed", "E1: no space", "It failed in 3 windows in a row."):
        assert part in output


def test_no_machine_needs_a_person(patchwave: Patchwave, service: Service):
    service.answers = [JSONResponse({"machines": [], "cursor": None})]
    assert "No machine needs a person" in patchwave("fleet", "needs-person").output


@pytest.mark.parametrize("named", ["web-1", "WEB-1", stuck(1)["id"], stuck(1)["key"]])
def test_a_machine_is_reset_by_name_id_or_key(patchwave: Patchwave, service: Service, named: str):
    listed = JSONResponse({"machines": [stuck(1), stuck(2)], "cursor": None})
    known = JSONResponse({"failedWindows": 3, "reason": "patches_failed", "runId": CHANGE})
    service.answers = [known] if named == stuck(1)["key"] else [listed, known]
    result = patchwave("fleet", "reset", named, "--reason", "The disk was full.", "--actor", "ana")
    assert result.code == 0
    assert "3 failed windows" in result.output
    [asked] = service.asked("POST", f"/api/fleet/needs-person/{stuck(1)['key']}/reset")
    assert asked["body"] == {"reason": "The disk was full.", "actor": "ana"}


@pytest.mark.parametrize(
    ("machines", "said"),
    [([stuck(2)], "No machine web-1 needs a person"), ([stuck(1), stuck(1, "rg-other")], "2 machines are named web-1")],
)
def test_a_name_that_does_not_say_which_machine(
    patchwave: Patchwave, service: Service, machines: list[dict[str, Any]], said: str
):
    service.answers = [JSONResponse({"machines": machines, "cursor": None})]
    result = patchwave("fleet", "reset", "web-1")
    assert result.code != 0
    assert said in result.errors
    assert service.asked("POST", f"/api/fleet/needs-person/{stuck(1)['key']}/reset") == []
