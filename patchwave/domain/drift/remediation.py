"""Commands that fix findings: complete lines for a POSIX shell."""

import json
import shlex
from collections.abc import Sequence

from patchwave.domain.core.ids import MachineType, is_scale_set_id
from patchwave.domain.fleet.patch_mode import PatchMode, WantedSettings
from patchwave.domain.fleet.scale_sets import ScaleSet
from patchwave.domain.maintenance.assignment import Assignment
from patchwave.domain.maintenance.configuration import IN_GUEST_PATCH_MODE, NEVER_EXPIRES


def set_mode(machine_id: str, wanted: WantedSettings) -> str:
    """Set a machine; a change waits for a yes, see ``patchwave fleet set-mode``."""
    parts = ["fleet", "set-mode", "--machine", machine_id]
    if wanted.patch_mode is not None:
        parts += ["--mode", wanted.patch_mode.value]
    if wanted.bypass is not None:
        parts.append("--bypass" if wanted.bypass else "--no-bypass")
    if wanted.assessment_mode is not None:
        parts += ["--assessment-mode", wanted.assessment_mode.value]
    return _patchwave(*parts)


def show(machine_id: str) -> str:
    """Look at a machine with Azure's own command: there is nothing that ours could do with it."""
    is_arc = MachineType.of(machine_id) is MachineType.ARC
    command = "connectedmachine" if is_arc else "vmss" if is_scale_set_id(machine_id) else "vm"
    return shlex.join(["az", command, "show", "--ids", machine_id])


def end_enrolment(machine_id: str) -> str:
    """Take a machine out of Azure Arc; its agent is disconnected on the machine itself."""
    return f"{shlex.join(['az', 'connectedmachine', 'delete', '--ids', machine_id])}  # then azcmagent disconnect there"


def monitor_health(scale_set: ScaleSet) -> str:
    """Give a scale set the Application Health extension, and its members with it. The port is that of the service."""
    _, _, _, _, group, *_ = scale_set.id.split("/")
    named = ["--resource-group", group, "--subscription", scale_set.id.split("/")[2]]
    kind = "ApplicationHealthWindows" if scale_set.os_type.lower() == "windows" else "ApplicationHealthLinux"
    extension = ["--publisher", "Microsoft.ManagedServices", "--name", kind, "--version", "2.0"]
    settings = json.dumps({"protocol": "tcp", "port": 443})
    add = ["az", "vmss", "extension", "set", *named, "--vmss-name", scale_set.name, *extension, "--settings", settings]
    update = ["az", "vmss", "update-instances", *named, "--name", scale_set.name, "--instance-ids", "*"]
    return f"{shlex.join(add)} && {shlex.join(update)}  # the port at which the application answers"


def list_offers(publisher: str, location: str) -> str:
    """The images of a publisher, to choose one from for a new machine: no command replaces the image of a machine."""
    return shlex.join(
        ["az", "vm", "image", "list-offers", "--publisher", publisher, "--location", location, "--output", "table"]
    )


def allow_extensions(machine_id: str, *, installs_agent: bool = False) -> str:
    """Let extensions be installed; without an agent a person has to install that in the guest first."""
    fix = shlex.join(["az", "vm", "update", "--ids", machine_id, "--set", "osProfile.allowExtensionOperations=true"])
    return f"{fix}  # after the agent was installed in the guest: {_AGENT_PAGE}" if installs_agent else fix


def restart_machine(machine_id: str) -> str:
    """Restart a machine, and with it its agent."""
    return f"az vm restart --ids {shlex.quote(machine_id)}  # where the agent is missing, install it: {_AGENT_PAGE}"


def update_linux_agent(machine_id: str) -> str:
    """Install the distribution's newest agent, by the one that is there."""
    script = (
        "if command -v apt-get; then apt-get -qq update && apt-get -y install walinuxagent;"
        " elif command -v zypper; then zypper --non-interactive install python-azure-agent;"
        " else yum -y install WALinuxAgent; fi"
    )
    return _in_guest(machine_id, "RunShellScript", script)


def mask_packagekit(machine_id: str) -> str:
    return _in_guest(machine_id, "RunShellScript", "systemctl stop packagekit", "systemctl mask packagekit")


def enable_windows_update(machine_id: str) -> str:
    return _in_guest(
        machine_id,
        "RunPowerShellScript",
        "Set-Service -Name wuauserv -StartupType Manual",
        "Start-Service -Name wuauserv",
    )


def show_wsus(machine_id: str) -> str:
    """The update server that the guest is set to, and whether it is reached; Microsoft's own where none is set."""
    return _in_guest(
        machine_id,
        "RunPowerShellScript",
        "$server = (Get-ItemProperty HKLM:\\SOFTWARE\\Policies\\Microsoft\\Windows\\WindowsUpdate"
        " -ErrorAction SilentlyContinue).WUServer",
        "if (-not $server) { $server = 'https://windowsupdate.microsoft.com' }",
        "Test-NetConnection ([uri]$server).Host -Port ([uri]$server).Port",
    )


def refresh_repositories(machine_id: str) -> str:
    """Read the package lists again; what the package manager says names the repository that is out of reach."""
    script = (
        "if command -v apt-get; then apt-get update;"
        " elif command -v zypper; then zypper --non-interactive refresh; else yum makecache; fi"
    )
    return _in_guest(machine_id, "RunShellScript", script)


_AGENT_PAGE = "https://learn.microsoft.com/azure/virtual-machines/extensions/overview"


def _in_guest(machine_id: str, command: str, *scripts: str) -> str:
    """Run a script by the VM agent."""
    return shlex.join(
        ["az", "vm", "run-command", "invoke", "--ids", machine_id, "--command-id", command, "--scripts", *scripts]
    )


def to_azure() -> WantedSettings:
    """The settings that hand a machine to Azure's automatic patching."""
    return WantedSettings(patch_mode=PatchMode.AUTOMATIC_BY_PLATFORM, bypass=False)


def to_schedules() -> WantedSettings:
    """The settings that hand a machine to schedules, or where there are none to Patchwave alone."""
    return WantedSettings(patch_mode=PatchMode.AUTOMATIC_BY_PLATFORM, bypass=True)


def delete_assignment(assignment: Assignment) -> str:
    return _patchwave("maintenance", "assignment", "delete", assignment.id)


def delete_assignments(assignments: Sequence[Assignment]) -> str:
    return " && ".join(map(delete_assignment, assignments))


def assign_again(assignment: Assignment) -> str:
    anew = _patchwave("maintenance", "assign", assignment.maintenance_configuration_id, assignment.resource_id)
    return f"{delete_assignment(assignment)} && {anew}"


def change_configuration(configuration_id: str, path: str, value: str) -> str:
    return _patchwave("maintenance", "configuration", "change", configuration_id, "--set", f"{path}={value}")


def set_patch_mode(configuration_id: str) -> str:
    """Let a configuration patch at all."""
    return change_configuration(configuration_id, f"properties.extensionProperties.{IN_GUEST_PATCH_MODE}", "User")


def revive(configuration_id: str) -> str:
    """Let a configuration that has ended go on."""
    return change_configuration(
        configuration_id, "properties.maintenanceWindow.expirationDateTime", NEVER_EXPIRES[: len("YYYY-MM-DD hh:mm")]
    )


def delete_configuration(configuration_id: str) -> str:
    return _patchwave("maintenance", "configuration", "delete", configuration_id)


def edit_policy(name: str, why: str) -> str:
    """Read a policy, let a person change it, and store it."""
    file = f"{name}.yaml"
    read, store = _patchwave("policy", "show", name), _patchwave("policy", "apply", "-f", file)
    return f"{read} > {file} && ${{EDITOR:-vi}} {file} && {store}  # {why}"


def run_on(machine_id: str, mode: str) -> str:
    kind = MachineType.of(machine_id)
    types: dict[str, list[str]] = {} if kind is MachineType.AZURE else {"machineTypes": [kind.value]}
    policy = json.dumps({"scope": {"machineIds": [machine_id], **types}})
    return f"echo {shlex.quote(policy)} | {_patchwave('run', 'start', '-f', '-', '--mode', mode, '--wait')}"


def patch(machine_id: str) -> str:
    """A run that patches one machine, and an assessment that shows it."""
    return f"{run_on(machine_id, 'patch')} && {run_on(machine_id, 'assess')}"


def _patchwave(*parts: str) -> str:
    return shlex.join(["patchwave", *parts])
