"""Machines without a patch source or with several, and machines on which a schedule fails."""

from collections import Counter
from collections.abc import Iterator

from patchwave.domain.core.folding import fold
from patchwave.domain.drift import remediation
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.fleet_index import FleetIndex, PatchCoverage
from patchwave.domain.drift.guest_checks import mend_agent, run_or_mend_agent
from patchwave.domain.fleet.patch_mode import PatchMode, PatchSource, WantedSettings, refusal_of


def check_patchers(index: FleetIndex) -> Iterator[Finding]:
    """At most one finding for each machine: it names all patch sources."""
    for standing in index.coverages:
        if finding := _check(index, standing):
            yield finding


def check_scale_sets(index: FleetIndex) -> Iterator[Finding]:
    """Flexible scale sets with members in the fleet, and nothing that tells Azure whether these work."""
    members = Counter(fold(machine.found.scale_set_id) for machine in index.machines.values())
    for each in index.facts.scale_sets:
        count = members[fold(each.id)]
        if count and each.monitors_health is False:
            evidence = (
                f"Its model has no Application Health extension, which Azure requires for guest patching of Flexible"
                f" scale sets; nothing tells whether its members ({count:,}) work after their patches."
            )
            fix = remediation.monitor_health(each)
            yield Finding(kind=FindingKind.UNMONITORED_SCALE_SET, subject=each.id, evidence=evidence, fix=fix)


def _check(index: FleetIndex, standing: PatchCoverage) -> Finding | None:
    settings, patching = standing.machine.settings, standing.patching
    if standing.machine.is_duplicate:
        found = standing.machine.found
        return _finding(FindingKind.DUPLICATE, standing, found.problem, remediation.end_enrolment(found.id))
    if settings is None or standing.machine.found.problem:
        evidence = standing.machine.found.problem or standing.machine.eligibility.sentence
        return _finding(FindingKind.UNMANAGEABLE, standing, evidence, remediation.show(standing.machine.found.id))
    if patching is None:
        return None
    if patching.patcher is PatchSource.UNKNOWN:
        return None if standing.policies else _unknown_image(standing)
    if standing.policies and standing.others:
        return _two(standing)
    if not standing.policies and patching.patcher is PatchSource.NONE:
        return _unpatched(index, standing)
    if patching.is_mistake:
        evidence = " ".join([patching.sentence, *_policies(standing)])
        fix = _detach(standing) if standing.policies else _set(standing, remediation.to_schedules())
        return _finding(FindingKind.INEFFECTIVE_SCHEDULE, standing, evidence, fix)
    if settings.patch_mode is PatchMode.IMAGE_DEFAULT and not (standing.policies or standing.machine.is_arc):
        evidence = " ".join([patching.sentence, *standing.resting])
        return _finding(FindingKind.OS_MANAGED, standing, evidence, _set(standing, remediation.to_azure()))
    return None


def _unpatched(index: FleetIndex, standing: PatchCoverage) -> Finding:
    patching = standing.patching
    assert patching is not None
    why = patching.sentence
    reasons = [reason for each in standing.attached if (reason := index.why_not(each.configuration))]
    if reasons and len(reasons) == len(standing.attached) and not patching.is_mistake:
        why = f"Set to follow a schedule, and what is attached patches nothing: {'; '.join(reasons)}."
    fix = _unpatched_fix(index, standing)
    return _finding(FindingKind.UNPATCHED, standing, " ".join([why, *standing.resting]), fix)


def _unpatched_fix(index: FleetIndex, standing: PatchCoverage) -> str:
    """Let what is attached work; hand the machine to Azure where nothing is."""
    settings = standing.machine.settings
    assert settings is not None
    if not standing.attached and (standing.machine.unsupported or standing.machine.is_arc):
        return run_or_mend_agent(standing.machine, "patch")
    if not standing.attached:
        return _set(standing, remediation.to_azure())
    follows = standing.machine.is_arc or remediation.to_schedules().is_met_by(settings)
    steps = [] if follows else [_set(standing, remediation.to_schedules())]
    if all(index.why_not(each.configuration) for each in standing.attached):
        dead = standing.attached[0].configuration
        steps.insert(0, (remediation.revive if dead.in_guest_patch_mode else remediation.set_patch_mode)(dead.id))
    return " && ".join(steps)


def _unknown_image(standing: PatchCoverage) -> Finding | None:
    """An assessment that succeeds shows that Azure takes the machine; without an agent there can be none."""
    eligibility, patching = standing.machine.eligibility, standing.patching
    if patching is None or not eligibility.is_image_undecided:
        return None
    evidence = " ".join([patching.sentence, eligibility.image_note, *standing.resting])
    return _finding(FindingKind.UNKNOWN_IMAGE, standing, evidence, run_or_mend_agent(standing.machine, "assess"))


def _two(standing: PatchCoverage) -> Finding:
    evidence = " ".join([*_policies(standing), f"So does {' and '.join(standing.others)}, outside of its windows."])
    assert standing.patching is not None
    is_scheduled = standing.patching.patcher is PatchSource.SCHEDULE
    fix = _detach(standing) if is_scheduled else _set(standing, remediation.to_schedules())
    return _finding(FindingKind.MULTIPLE_PATCHERS, standing, evidence, fix)


def _detach(standing: PatchCoverage) -> str:
    """Take the machine out of its schedules; where a dynamic scope holds it, leave it to them instead."""
    assignments = [one for each in standing.attached for one in each.assignments]
    if any(one.is_dynamic for one in assignments):
        return _leave_out(standing)
    return remediation.delete_assignments(assignments)


def _leave_out(standing: PatchCoverage) -> str:
    return remediation.edit_policy(
        standing.policies[0], f"name {standing.machine.found.id} under scope.exclude.machineIds"
    )


def _set(standing: PatchCoverage, wanted: WantedSettings) -> str:
    """Set the machine. Where Azure refuses that: leave it to its source of patches or to Azure, or patch it once."""
    settings = standing.machine.settings
    assert settings is not None
    if agent := mend_agent(standing.machine):
        # Whatever a machine is set to, nothing patches it without an agent.
        return agent
    if refusal_of(settings, wanted) is None:
        return remediation.set_mode(standing.machine.found.id, wanted)
    if standing.policies:
        return _leave_out(standing)
    assignments = [one for each in standing.attached for one in each.assignments]
    if settings.is_by_platform and assignments and not any(one.is_dynamic for one in assignments):
        return remediation.delete_assignments(assignments)
    return run_or_mend_agent(standing.machine, "patch")


def _policies(standing: PatchCoverage) -> list[str]:
    names = ", ".join(standing.policies)
    return [f"The {'policies' if len(standing.policies) > 1 else 'policy'} {names} patches it."] if names else []


def _finding(kind: FindingKind, standing: PatchCoverage, evidence: str, fix: str) -> Finding:
    return Finding(kind=kind, subject=standing.machine.found.id, evidence=evidence, fix=fix)
