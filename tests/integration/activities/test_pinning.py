"""pin_ring, and what is sent to a machine under ring pinning and approval delay, on a real Azurite."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from activities import patch_pinning, poll_operation, submit_operation
from activities.context import load_machine
from patchwave.azure.virtual_machines import Submission
from patchwave.domain.azure.install_request import InstallParameters, LinuxParameters, WindowsParameters
from patchwave.domain.azure.operation import OperationKind, PollReading, PollState
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, PatchRecord
from patchwave.domain.machine.patch_pinning import LinuxPin, Pin, PinSize
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.outcome_rules import nothing_to_install
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.workflow.operation import OperationRef, OperationState, StartOperation, StartResult, StartState
from patchwave.domain.workflow.run import RingRef
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import NOW, command, intent, machine

RUN = "20261110T190000Z-monthly"
POLICY: dict[str, Any] = {
    "name": "monthly",
    "scope": {"locations": ["westeurope"]},
    "rings": [{"name": "broad", "after": "canary"}, {"name": "canary", "tags": {"values": {"ring": ["canary"]}}}],
    "pinRings": True,
}
DAY = timedelta(days=1)
INSTALLED = InstallationSummary(status="Succeeded", installed=1)


def package(name: str, version: str, state: str = "Available") -> PatchRecord:
    return PatchRecord(name=name, version=version, state=state, classifications=["Security"])


def kb(number: str, state: str = "Available") -> PatchRecord:
    return PatchRecord(
        name=f"Update {number}", kb_id=number, state=state, classifications=["Security"], published_at=NOW - 30 * DAY
    )


async def begin(storage: Storage, mode: Mode = Mode.PATCH, **changes: Any) -> None:
    run = Run(
        id=RUN,
        policy="monthly",
        mode=mode,
        state=RunState.QUEUED,
        trigger=Trigger(kind=TriggerKind.HTTP),
        created_at=NOW,
        policy_snapshot=parse_policy(POLICY | changes).to_wire(),
    )
    await storage.runs.create(run)
    await storage.runs.start(RUN, NOW)


async def add(
    storage: Storage, number: int, ring: str, patches: Sequence[PatchRecord], os_type: str = "Linux", **changes: Any
) -> MachineRecord:
    """A machine of a ring, assessed with these patches."""
    one = machine(number, ring=ring, os_type=os_type, **changes)
    await storage.machines.add(RUN, [one])
    summary = AssessmentSummary(status="Succeeded", critical_and_security=len(patches))
    await storage.results.record_assessment(RUN, one.key, summary, patches, NOW)
    return one


async def install(
    storage: Storage, one: MachineRecord, patches: Sequence[PatchRecord], outcome: OutcomeKind = OutcomeKind.PATCHED
) -> None:
    """The machine has installed these, and ended."""
    await storage.results.record_installation(RUN, one.key, INSTALLED, patches)
    ended = Outcome(outcome=outcome, reason=Reason.OK, message="-")
    await storage.results.record_outcome(RUN, one.key, ended, at=NOW, installation=INSTALLED, patches=[])


async def pin(services: Services, ring: str = "canary") -> PinSize:
    return await patch_pinning.pin_ring(services, RingRef(run_id=RUN, ring=ring))


async def choice(services: Services, one: MachineRecord) -> WindowsParameters | LinuxParameters | Outcome:
    os_type = OsType.read(one.os_type)
    assert os_type
    return await patch_pinning.what_to_install(await load_machine(services, RUN, one.key), os_type)


async def masks_of(services: Services, one: MachineRecord) -> list[str]:
    found = await choice(services, one)
    assert isinstance(found, LinuxParameters), found
    return found.package_name_masks_to_include


async def refusal(services: Services, one: MachineRecord) -> Outcome:
    found = await choice(services, one)
    assert isinstance(found, Outcome), found
    return found


async def test_the_pin_holds_what_machines_of_the_ring_installed_that_ended_well(
    services: Services, storage: Storage
) -> None:
    await begin(storage)
    good = await add(storage, 1, "canary", [package("curl", "8.1"), package("vim", "9")])
    await install(storage, good, [package("curl", "8.1", "Installed"), package("vim", "9", "Failed")])
    bad = await add(storage, 2, "canary", [package("systemd", "1")])
    await install(storage, bad, [package("systemd", "1", "Installed")], OutcomeKind.FAILED)
    other = await add(storage, 3, "broad", [package("nano", "7")])
    await install(storage, other, [package("nano", "7", "Installed")])
    windows = await add(storage, 4, "canary", [kb("5000001")], "Windows")
    await install(storage, windows, [kb("5000001", "Installed")])
    waiting = await add(storage, 5, "canary", [package("bash", "5")])
    await storage.results.record_installation(RUN, waiting.key, INSTALLED, [package("bash", "5", "Installed")])
    await storage.machines.update(RUN, waiting.key, Stage.INSTALLED)
    assert await pin(services) == PinSize(kbs=1, packages=2)
    stored = await storage.patch_pins.get(RUN)
    assert stored
    assert stored.from_ring == "canary"
    assert stored.linux
    assert stored.linux.masks == ["bash=5", "curl=8.1"]
    assert stored.windows
    assert stored.windows.kbs == ["KB5000001"]


async def test_the_pin_does_not_grow_after_it_was_written(services: Services, storage: Storage) -> None:
    await begin(storage)
    first = await add(storage, 1, "canary", [package("curl", "8.1")])
    await install(storage, first, [package("curl", "8.1", "Installed")])
    assert await pin(services) == PinSize(packages=1)
    late = await add(storage, 2, "canary", [package("vim", "9")])
    await install(storage, late, [package("vim", "9", "Installed")])
    assert await pin(services) == PinSize(packages=1)


async def test_only_the_first_ring_installs_freely(services: Services, storage: Storage) -> None:
    """The list of the policy names the broad ring first; its order does not."""
    await begin(storage)
    canary = await add(storage, 1, "canary", [package("curl", "8.1")])
    broad = await add(storage, 2, "broad", [package("curl", "8.2"), package("vim", "9")])
    found = await choice(services, canary)
    assert isinstance(found, LinuxParameters)
    assert found.classifications_to_include
    early = await refusal(services, broad)
    assert (early.outcome, early.reason) == (OutcomeKind.SKIPPED, Reason.NOT_PINNED)
    assert "canary" in early.message
    await install(storage, canary, [package("curl", "8.1", "Installed")])
    await pin(services)
    assert await masks_of(services, broad) == ["curl=8.1"]


async def test_a_retry_with_a_pin_stays_pinned_in_any_ring(services: Services, storage: Storage) -> None:
    """Alone in its run, a machine of a later ring may be the percentage that makes the first one."""
    await begin(storage)
    await storage.patch_pins.save(RUN, Pin(from_ring="canary", at=NOW, linux=LinuxPin(masks=["curl=8.1"])))
    canary = await add(storage, 1, "canary", [package("curl", "8.2")])
    assert await masks_of(services, canary) == ["curl=8.1"]


async def test_with_an_empty_first_ring_nothing_is_installed(services: Services, storage: Storage) -> None:
    await begin(storage)
    broad = await add(storage, 1, "broad", [package("curl", "8.1")])
    assert await pin(services) == PinSize()
    outcome = await refusal(services, broad)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.NOT_PINNED)
    assert "installed nothing" in outcome.message


async def test_without_pinning_and_delay_the_policy_decides_alone(services: Services, storage: Storage) -> None:
    await begin(storage, pinRings=False)
    one = await add(storage, 1, "broad", [package("curl", "8.1")])
    assert await choice(services, one) == parse_policy(POLICY).install.linux


async def test_a_delay_counts_from_the_first_sighting_to_the_start_of_the_run(
    services: Services, storage: Storage
) -> None:
    await begin(storage, pinRings=False, install={"approvalDelayDays": 7})
    one = await add(storage, 1, "broad", [package("curl", "8.1"), package("vim", "9"), package("git", "2")])
    await storage.patch_pins.record_first_seen(OsType.LINUX, [("curl", "8.1")], NOW - 8 * DAY)
    await storage.patch_pins.record_first_seen(OsType.LINUX, [("vim", "9")], NOW - 6 * DAY)
    assert await masks_of(services, one) == ["curl=8.1"]


async def test_pin_and_delay_both_take_away(services: Services, storage: Storage) -> None:
    await begin(storage, install={"approvalDelayDays": 7})
    canary = await add(storage, 1, "canary", [package("curl", "8.1"), package("vim", "9")])
    await install(storage, canary, [package("curl", "8.1", "Installed"), package("vim", "9", "Installed")])
    await pin(services)
    broad = await add(storage, 2, "broad", [package("curl", "8.1"), package("vim", "9"), package("git", "2")])
    await storage.patch_pins.record_first_seen(OsType.LINUX, [("curl", "8.1"), ("git", "2")], NOW - 8 * DAY)
    await storage.patch_pins.record_first_seen(OsType.LINUX, [("vim", "9")], NOW)
    assert await masks_of(services, broad) == ["curl=8.1"]


async def test_a_count_without_a_list_has_no_age(services: Services, storage: Storage) -> None:
    await begin(storage, pinRings=False, install={"approvalDelayDays": 7})
    one = machine(1, ring="broad")
    await storage.machines.add(RUN, [one])
    summary = AssessmentSummary(status="Succeeded", critical_and_security=9, list_is_partial=True)
    await storage.results.record_assessment(RUN, one.key, summary, [], NOW)
    outcome = await refusal(services, one)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.APPROVAL_DELAY)


async def test_every_assessment_notes_its_linux_packages(services: Services, storage: Storage) -> None:
    await patch_pinning.note_packages(
        services.storage, [package("curl", "8.1"), kb("5000001"), PatchRecord(name="unversioned")]
    )
    seen = await storage.patch_pins.first_seen(
        OsType.LINUX, [("curl", "8.1"), ("Update 5000001", ""), ("unversioned", "")]
    )
    assert list(seen) == [("curl", "8.1")]


class Azure:
    """Takes every installation, and keeps what was asked for."""

    def __init__(self) -> None:
        self.asked: list[InstallParameters] = []

    async def install(
        self, machine_id: MachineId, location: str, parameters: InstallParameters, intent: Intent
    ) -> Submission:
        self.asked.append(parameters)
        return Submission(accepted=True)


@pytest.fixture
def azure(
    services: Services,
) -> Azure:
    found = Azure()
    vars(services).update(resource_manager=found)
    return found


async def install_patches(services: Services, one: MachineRecord) -> StartResult:
    request = StartOperation(run_id=RUN, machine_key=one.key, kind=OperationKind.INSTALL)
    return await submit_operation.submit(services, request)


async def test_the_call_carries_the_versions_of_the_first_ring_and_no_class(
    services: Services, storage: Storage, azure: Azure
) -> None:
    await begin(storage)
    canary = await add(storage, 1, "canary", [package("curl", "8.1")])
    broad = await add(storage, 2, "broad", [package("curl", "8.2"), package("vim", "9")])
    assert (await install_patches(services, canary)).state is StartState.ACCEPTED
    await install(storage, canary, [package("curl", "8.1", "Installed")])
    await pin(services)
    assert (await install_patches(services, broad)).state is StartState.ACCEPTED
    free, pinned = [parameters.to_azure()["linuxParameters"] for parameters in azure.asked]
    assert free == {"classificationsToInclude": ["Critical", "Security"]}
    assert pinned == {"packageNameMasksToInclude": ["curl=8.1"]}


async def test_a_machine_for_which_nothing_is_left_ends_without_a_call_and_without_an_intent(
    services: Services, storage: Storage, azure: Azure
) -> None:
    await begin(storage)
    broad = await add(storage, 1, "broad", [package("curl", "8.2")])
    answer = await install_patches(services, broad)
    assert answer.state is StartState.ENDED
    assert answer.outcome
    assert answer.outcome.reason is Reason.NOT_PINNED
    assert azure.asked == []
    assert await storage.intents.get(RUN, broad.key, OperationKind.INSTALL) is None


async def test_the_end_of_an_assessment_notes_its_packages_under_any_policy(
    services: Services, storage: Storage
) -> None:
    found: Json = {
        "status": "Succeeded",
        "availablePatches": [
            {"patchId": "curl_8.1", "name": "curl", "version": "8.1", "classifications": ["Security"]},
        ],
    }

    class Ended:
        async def poll(self, machine_id: MachineId, async_url: str, location_url: str) -> PollReading:
            return PollReading(state=PollState.SUCCEEDED, result=found)

    vars(services).update(resource_manager=Ended())
    await begin(storage, pinRings=False)
    one = machine(1, ring="broad")
    await storage.machines.add(RUN, [one])
    await storage.intents.declare(intent(RUN, kind=OperationKind.ASSESS))
    request = OperationRef(run_id=RUN, machine_key=one.key, kind=OperationKind.ASSESS)
    report = await poll_operation.poll_operation(services, request)
    assert report.state is OperationState.ENDED
    assert list(await storage.patch_pins.first_seen(OsType.LINUX, [("curl", "8.1")])) == [("curl", "8.1")]


# --- what an assessment brings is judged by the policy of the run


async def assess(services: Services, storage: Storage, os_type: str, *patches: Json) -> AssessmentSummary:
    """What is kept of an assessment that ends with these patches."""
    found: Json = {"status": "Succeeded", "otherPatchCount": len(patches), "availablePatches": list(patches)}

    class Ended:
        async def poll(self, machine_id: MachineId, async_url: str, location_url: str) -> PollReading:
            return PollReading(state=PollState.SUCCEEDED, result=found)

    vars(services).update(resource_manager=Ended())
    one = machine(1, ring="canary", os_type=os_type)
    await storage.machines.add(RUN, [one])
    await storage.intents.declare(intent(RUN, kind=OperationKind.ASSESS, os_type=os_type))
    request = OperationRef(run_id=RUN, machine_key=one.key, kind=OperationKind.ASSESS)
    report = await poll_operation.poll_operation(services, request)
    assert report.assessment
    stored = await storage.machines.get(RUN, one.key)
    assert stored
    assert stored.assessment
    assert stored.assessment.selection == report.assessment.selection
    return stored.assessment


OTHER: Json = {"name": "vim", "version": "9", "classifications": ["Other"]}
UPDATE: Json = {"name": "Update for .NET", "kbId": "5000001", "classifications": ["Updates"]}


@pytest.mark.parametrize(
    ("os_type", "patch", "install", "selected"),
    [
        ("Linux", OTHER, {}, 0),
        ("Linux", OTHER | {"classifications": ["Security"]}, {}, 1),
        ("Linux", OTHER, {"linux": {"classificationsToInclude": ["Other"]}}, 1),
        ("Linux", OTHER, {"windows": {"classificationsToInclude": ["Updates"]}}, 0),
        ("Windows", UPDATE, {}, 0),
        ("Windows", UPDATE, {"windows": {"classificationsToInclude": ["Updates"]}}, 1),
        ("Windows", UPDATE, {"linux": {"classificationsToInclude": ["Other"]}}, 0),
    ],
)
async def test_an_assessment_is_judged_by_the_policy_of_its_run(
    services: Services,
    storage: Storage,
    os_type: str,
    patch: Json,
    install: Json,
    selected: int,
) -> None:
    await begin(storage, pinRings=False, install=install)
    found = await assess(services, storage, os_type, patch)
    assert found.selection
    assert found.selection.installable == selected
    assert (nothing_to_install(found) is None) == bool(selected)


async def test_what_cannot_be_judged_is_left_as_it_is(services: Services, storage: Storage) -> None:
    await begin(storage, pinRings=False)
    assert (await assess(services, storage, "", OTHER)).selection is None


async def test_a_scheduled_run_installs_by_its_configuration_and_not_by_a_policy(
    services: Services, storage: Storage
) -> None:
    await begin(storage, mode=Mode.MAINTENANCE, pinRings=False)
    assert (await assess(services, storage, "Linux", OTHER)).selection is None


async def test_the_policy_of_a_run_is_read_once(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(storage, pinRings=False)
    reads: list[str] = []
    get_run = storage.runs.get

    async def counted(run_id: str) -> Run | None:
        reads.append(run_id)
        return await get_run(run_id)

    monkeypatch.setattr(storage.runs, "get", counted)
    for _ in range(3):
        found = await patch_pinning.note_selection(
            services.storage,
            intent(RUN, os_type="Linux"),
            AssessmentSummary(status="Succeeded", other=1),
            [package("curl", "8.1")],
        )
        assert found.selection
    assert reads == [RUN]


async def test_the_assessment_of_a_run_that_is_gone_is_kept(services: Services, storage: Storage) -> None:
    summary = AssessmentSummary(status="Succeeded", other=1)
    assert await patch_pinning.note_selection(services.storage, intent(RUN, os_type="Linux"), summary, []) == summary


async def test_first_sightings_are_of_a_package_whatever_its_architecture(services: Services, storage: Storage) -> None:
    await begin(storage, pinRings=False, install={"approvalDelayDays": 7})
    await patch_pinning.note_packages(services.storage, [package("openssl.x86_64", "1")])
    assert list(await storage.patch_pins.first_seen(OsType.LINUX, [("openssl", "1")])) == [("openssl", "1")]
    await storage.patch_pins.record_first_seen(OsType.LINUX, [("curl", "8.1")], NOW - 8 * DAY)
    one = await add(storage, 1, "broad", [package("curl.aarch64", "8.1")])
    assert await masks_of(services, one) == ["curl.aarch64=8.1"]


# --- machines for which no pin can exist


async def canary_of_linux(services: Services, storage: Storage, **changes: Any) -> MachineRecord:
    """A run whose first ring has one Linux machine, and a Windows machine in the ring behind."""
    await begin(storage, **changes)
    canary = await add(storage, 1, "canary", [package("curl", "8.1")], tags={"ring": "canary"})
    broad = await add(storage, 2, "broad", [kb("5000001")], "Windows")
    await install(storage, canary, [package("curl", "8.1", "Installed")])
    await pin(services)
    return broad


async def test_the_pin_keeps_which_kinds_of_machines_the_first_ring_has(services: Services, storage: Storage) -> None:
    await begin(storage)
    await add(storage, 1, "canary", [], tags={"ring": "canary"}, image="Canonical:jammy:22_04")
    await add(storage, 2, "", [], "Windows", tags={"ring": "canary"})
    await add(storage, 3, "broad", [], image="RedHat:RHEL:9")
    await pin(services)
    stored = await storage.patch_pins.get(RUN)
    assert stored
    assert stored.kinds == ["Linux/apt", "Windows"]


async def test_a_machine_that_cannot_be_pinned_is_skipped_by_default(services: Services, storage: Storage) -> None:
    outcome = await refusal(services, await canary_of_linux(services, storage))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.NOT_PINNED)
    assert "The first ring, canary, has no Windows machine" in outcome.message
    assert "withoutPin" in outcome.message


@pytest.mark.parametrize("choice_made", ["install", "wait"])
async def test_a_machine_that_cannot_be_pinned_installs_what_the_policy_selects(
    services: Services, storage: Storage, choice_made: str
) -> None:
    """With wait its ring has been approved before."""
    broad = await canary_of_linux(services, storage, withoutPin=choice_made)
    if choice_made == "wait":
        assert (await refusal(services, broad)).reason is Reason.NOT_APPROVED, (
            "the row decides, not the orchestration alone"
        )
        await storage.runs.decide_ring(RUN, "broad", command(), approved=True)
    assert await choice(services, broad) == parse_policy(POLICY).install.windows
    other = await add(storage, 3, "broad", [package("vim", "9")])
    assert (await refusal(services, other)).reason is Reason.NOT_PINNED, "the pin of its system holds it"


async def test_the_approval_delay_counts_without_a_pin_too(services: Services, storage: Storage) -> None:
    broad = await canary_of_linux(services, storage, withoutPin="install", install={"approvalDelayDays": 7})
    found = await choice(services, broad)
    assert isinstance(found, WindowsParameters)
    assert found.max_patch_publish_date == NOW - 7 * DAY


async def test_another_package_manager_cannot_be_pinned(services: Services, storage: Storage) -> None:
    await begin(storage)
    canary = await add(
        storage, 1, "canary", [package("curl", "8.1")], tags={"ring": "canary"}, image="Canonical:jammy:22_04"
    )
    suse = await add(storage, 2, "broad", [package("curl", "8.0")], image="SUSE:sles-15-sp5:gen2")
    custom = await add(storage, 3, "broad", [package("curl", "8.0")], image="/subscriptions/x/images/golden")
    await install(storage, canary, [package("curl", "8.1", "Installed")])
    await pin(services)
    outcome = await refusal(services, suse)
    assert "no Linux machine with the package manager zypper" in outcome.message
    assert await masks_of(services, custom) == ["curl=8.1"], "its package manager is not known, so the pin may hold"


@pytest.mark.parametrize("state", ["Failed", "Pending"])
async def test_a_first_ring_that_failed_lets_none_of_its_kind_install(
    services: Services, storage: Storage, state: str
) -> None:
    """A pin could exist and does not: what the policy says of machines without one does not count."""
    await begin(storage, withoutPin="install")
    canary = await add(storage, 1, "canary", [kb("5000001")], "Windows", tags={"ring": "canary"})
    broad = await add(storage, 2, "broad", [kb("5000001")], "Windows")
    await install(storage, canary, [kb("5000001", state)], OutcomeKind.FAILED)
    await pin(services)
    outcome = await refusal(services, broad)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.NOT_PINNED)
    assert "installed nothing on Windows machines" in outcome.message


async def test_a_pin_without_its_kinds_lets_no_machine_install(services: Services, storage: Storage) -> None:
    """That of a run before kinds were kept, or that a retry brought."""
    await begin(storage, withoutPin="install")
    await storage.patch_pins.save(RUN, Pin(from_ring="canary", at=NOW, linux=LinuxPin(masks=["curl=8.1"])))
    broad = await add(storage, 2, "broad", [kb("5000001")], "Windows")
    assert (await refusal(services, broad)).reason is Reason.NOT_PINNED
