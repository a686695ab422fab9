"""What a policy may not ask of Arc machines: Azure has no means to do it there, and nothing is left out in silence.

Azure cannot start, stop or restart an Arc machine, and takes no snapshot of its disks. Its scripts are not those of
virtual machines: Arc has run commands of its own, which are resources that outlive their run, and which Patchwave does
not use (docs/adr/0043-arc-machines.md).
"""

from collections.abc import Iterator

from patchwave.domain.core.ids import MachineType
from patchwave.domain.core.validation import Problem
from patchwave.domain.policy.hooks import Hooks
from patchwave.domain.policy.install import Install
from patchwave.domain.policy.rollout import RebootMode
from patchwave.domain.policy.scope import Scope

_OWN_POLICY = "leave it out, or give the Arc machines a policy of their own"


def type_problems(scope: Scope) -> Iterator[Problem]:
    """Machines that a scope names although it does not hold their type."""
    for place in scope.of_other_types:
        kind = MachineType.of(scope.machine_ids[place])
        what = "an Arc machine" if kind is MachineType.ARC else "a virtual machine of Azure"
        message = f"is {what}; add {kind.value} to scope.machineTypes"
        yield Problem(path=f"scope.machineIds[{place}]", message=message)
    if scope.scale_sets and MachineType.AZURE not in scope.machine_types:
        message = "members of scale sets are virtual machines of Azure; add azure to scope.machineTypes"
        yield Problem(path="scope.scaleSets", message=message)


def arc_problems(
    scope: Scope, *, hooks: Hooks, install: Install, reboot_mode: RebootMode, start_stopped: bool, maintenance: bool
) -> Iterator[Problem]:
    """Everything that a policy asks and that cannot be done on the Arc machines of its scope.

    ``startStopped`` beside virtual machines is no error: an Arc machine that is not connected is skipped with its
    reason either way.

    Args:
        scope: of the policy, as are the next four.
        hooks: any of them is meant for every machine, a snapshot as its way back.
        install: what is installed.
        reboot_mode: separate restarts are calls of Azure.
        start_stopped: an error where the scope holds nothing but Arc machines.
        maintenance: whether the policy has pre and post maintenance tasks.
    """
    if not scope.holds_arc:
        return
    if start_stopped and scope.machine_types == (MachineType.ARC,):
        yield Problem(path="startStopped", message="Azure cannot start an Arc machine; leave it out")
    if hooks.snapshot is not None:
        message = f"Azure takes no snapshot of an Arc machine, and scope.machineTypes has arc; {_OWN_POLICY}"
        yield Problem(path="hooks.snapshot", message=message)
    for name, script in (("before", hooks.before), ("after", hooks.after)):
        if script is not None:
            message = f"scripts run on virtual machines of Azure only, and scope.machineTypes has arc; {_OWN_POLICY}"
            yield Problem(path=f"hooks.{name}", message=message)
    if reboot_mode is RebootMode.SEPARATE:
        message = (
            "Azure cannot restart an Arc machine apart from its installation, and scope.machineTypes has arc; write"
            " together, or give the Arc machines a policy of their own"
        )
        yield Problem(path="rebootMode", message=message)
    if install.linux.maintenance_run_id is not None:
        message = f"is of virtual machines only, and scope.machineTypes has arc; {_OWN_POLICY}"
        yield Problem(path="install.linux.maintenanceRunId", message=message)
    if maintenance:
        message = (
            "pre and post maintenance is of virtual machines only, and scope.machineTypes has arc; give the Arc"
            " machines a policy of their own, without maintenance"
        )
        yield Problem(path="maintenance", message=message)
