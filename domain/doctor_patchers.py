"""Machines that nobody patches, that two patch, or whose schedule fails on them."""

from __future__ import annotations

from collections.abc import Iterator

from domain import remedies
from domain.doctor_index import FleetIndex, Standing
from domain.findings import Finding, FindingKind
from domain.patch_mode import Patcher, PatchMode, WantedSettings, refusal_of


def check_patchers(index: FleetIndex) -> Iterator[Finding]:
    """At most one finding for each machine, for each of them names everybody who patches it."""
    for standing in index.standings:
        if finding := _check(index, standing):
            yield finding


def _check(index: FleetIndex, standing: Standing) -> Finding | None:
    settings, patching = standing.machine.settings, standing.patching
    if settings is None or patching is None or patching.patcher is Patcher.UNKNOWN:
        return None
    if standing.policies and standing.others:
        return _two(standing)
    if not standing.policies and patching.patcher is Patcher.NOBODY:
        return _nobody(index, standing)
    if patching.is_mistake:
        evidence = " ".join([patching.sentence, *_policies(standing)])
        return _finding(FindingKind.SCHEDULE_WITHOUT_EFFECT, standing, evidence, _without_effect(standing))
    if settings.patch_mode is PatchMode.IMAGE_DEFAULT and not standing.policies:
        evidence = " ".join([patching.sentence, *standing.resting])
        return _finding(FindingKind.LEFT_TO_IMAGE, standing, evidence, _set(standing, remedies.to_azure()))
    return None


def _nobody(index: FleetIndex, standing: Standing) -> Finding:
    patching = standing.patching
    assert patching is not None
    why = patching.sentence
    reasons = [reason for each in standing.attached if (reason := index.why_not(each.configuration))]
    if reasons and len(reasons) == len(standing.attached) and not patching.is_mistake:
        why = f"Set to follow a schedule, and what is attached patches nothing: {'; '.join(reasons)}."
    return _finding(
        FindingKind.NOBODY_PATCHES, standing, " ".join([why, *standing.resting]), _nobody_fix(index, standing, reasons)
    )


def _nobody_fix(index: FleetIndex, standing: Standing, reasons: list[str]) -> str:
    """Let what is there work; hand the machine to Azure where nothing is."""
    live = [each for each in standing.attached if not index.why_not(each.configuration)]
    if live:
        return _set(standing, remedies.to_schedules())
    if standing.attached and reasons:
        # The finding of the configuration names its own fix; here it is the machine that must not wait for it.
        taken_away = remedies.delete_assignments(
            [one for each in standing.attached for one in each.assignments if not one.is_dynamic]
        )
        return " && ".join(filter(None, [taken_away, _set(standing, remedies.to_azure())]))
    if standing.machine.unsupported:
        return remedies.run_on(standing.machine.found.id, "patch")
    return _set(standing, remedies.to_azure())


def _two(standing: Standing) -> Finding:
    evidence = " ".join([*_policies(standing), f"So does {' and '.join(standing.others)}, outside of its windows."])
    assert standing.patching is not None
    if standing.patching.patcher is Patcher.SCHEDULE:
        fix = _detach(standing)
    else:
        fix = _set(standing, remedies.to_schedules())
    return _finding(FindingKind.PATCHED_BY_TWO, standing, evidence, fix)


def _without_effect(standing: Standing) -> str:
    return _detach(standing) if standing.policies else _set(standing, remedies.to_schedules())


def _detach(standing: Standing) -> str:
    """Take the machine out of its schedules; where a dynamic scope holds it, leave it to them instead."""
    assignments = [one for each in standing.attached for one in each.assignments]
    if any(one.is_dynamic for one in assignments):
        return _leave_out(standing)
    return remedies.delete_assignments(assignments)


def _leave_out(standing: Standing) -> str:
    return remedies.edit_policy(
        standing.policies[0], f"name {standing.machine.found.id} under scope.exclude.machineIds"
    )


def _set(standing: Standing, wanted: WantedSettings) -> str:
    """Set the machine, unless Azure refuses that: then Patchwave leaves it, or takes it, itself."""
    settings = standing.machine.settings
    assert settings is not None
    if refusal_of(settings, wanted) is None:
        return remedies.set_mode(standing.machine.found.id, wanted)
    return _leave_out(standing) if standing.policies else remedies.run_on(standing.machine.found.id, "patch")


def _policies(standing: Standing) -> list[str]:
    names = ", ".join(standing.policies)
    return [f"The {'policies' if len(standing.policies) > 1 else 'policy'} {names} patches it."] if names else []


def _finding(kind: FindingKind, standing: Standing, evidence: str, fix: str) -> Finding:
    return Finding(kind=kind, subject=standing.machine.found.id, evidence=evidence, fix=fix)
