"""The examples of "Automatic VM guest patching for Azure VMs", each under the heading that it stands below."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import azure_powershell
from tests.support.document_examples import NEWEST, Examples
from tests.support.simulator import Json

VERSION = "2020-12-01"
LINUX_MODE: Json = {
    "location": "<location>",
    "properties": {
        "osProfile": {
            "linuxConfiguration": {"provisionVMAgent": True, "patchSettings": {"patchMode": "AutomaticByPlatform"}}
        }
    },
}
WINDOWS_MODE: Json = {
    "location": "<location>",
    "properties": {
        "osProfile": {
            "windowsConfiguration": {
                "provisionVMAgent": True,
                "enableAutomaticUpdates": True,
                "patchSettings": {"patchMode": "AutomaticByPlatform"},
            }
        }
    },
}


def patch_mode(examples: Examples, machine: str) -> object:
    profile = examples.profile(machine)
    half: Json = profile.get("windowsConfiguration") or profile["linuxConfiguration"]
    return half["patchSettings"]["patchMode"]


class TestEnableAutomaticVMGuestPatching:
    @pytest.mark.parametrize(("system", "body"), [("Linux", LINUX_MODE), ("Windows", WINDOWS_MODE)])
    def test_rest_api(self, examples: Examples, system: str, body: Json) -> None:
        machine = examples.machine(system)
        reply = examples.send("PUT", machine, VERSION, body | {"location": "westeurope"})
        assert reply.status_code == 200, reply.text
        examples.follow(reply)
        assert patch_mode(examples, machine) == "AutomaticByPlatform"

    def test_azure_powershell_when_creating_a_windows_vm(self, examples: Examples) -> None:
        machine = examples.machine("Windows")
        profile = examples.profile(machine)
        cmdlet = azure_powershell.translate(
            "Set-AzVMOperatingSystem -VM $VirtualMachine -Windows -ComputerName $ComputerName -Credential $Credential"
            ' -ProvisionVMAgent -EnableAutoUpdate -PatchMode "AutomaticByPlatform"',
            {
                "VirtualMachine": machine,
                "ComputerName": profile["computerName"],
                "Credential": profile["adminUsername"],
            },
        )
        # The same document as the one above; no machine is created here.
        half = cmdlet.body["properties"]["osProfile"]["windowsConfiguration"]
        assert half == WINDOWS_MODE["properties"]["osProfile"]["windowsConfiguration"]
        examples.follow(examples.send("PUT", machine, NEWEST, {"location": "westeurope"} | cmdlet.body))
        assert patch_mode(examples, machine) == "AutomaticByPlatform"

    def test_azure_powershell_when_updating_a_windows_vm(self, examples: Examples) -> None:
        machine = examples.machine("Windows")
        cmdlet = azure_powershell.translate(
            'Set-AzVMOperatingSystem -VM $VirtualMachine -PatchMode "AutomaticByPlatform"', {"VirtualMachine": machine}
        )
        # Update-AzVM sends the whole machine that Get-AzVM read.
        whole = examples.send("GET", machine, NEWEST).json()
        settings = cmdlet.body["properties"]["osProfile"]["windowsConfiguration"]["patchSettings"]
        whole["properties"]["osProfile"]["windowsConfiguration"]["patchSettings"] |= settings
        examples.follow(examples.send("PUT", machine, NEWEST, whole))
        assert patch_mode(examples, machine) == "AutomaticByPlatform"

    def test_azure_cli_vm_create(self, examples: Examples) -> None:
        machine = examples.machine("Windows")
        command = (
            "az vm create --resource-group myResourceGroup --name myVM --image Win2019Datacenter"
            " --enable-agent --enable-auto-update --patch-mode AutomaticByPlatform"
        )
        examples.follow(examples.az(command, machine))
        assert patch_mode(examples, machine) == "AutomaticByPlatform"

    def test_azure_cli_vm_update(self, examples: Examples) -> None:
        machine = examples.machine("Windows")
        command = (
            "az vm update --resource-group myResourceGroup --name myVM"
            " --set osProfile.windowsConfiguration.enableAutomaticUpdates=true"
            " osProfile.windowsConfiguration.patchSettings.patchMode=AutomaticByPlatform"
        )
        examples.follow(examples.az(command, machine))
        assert patch_mode(examples, machine) == "AutomaticByPlatform"


class TestEnablementAndAssessment:
    def test_rest_api(self, examples: Examples) -> None:
        machine = examples.machine("Windows", pendingPatches=2)
        examples.follow(examples.send("POST", f"{machine}/assessPatches", VERSION))
        view = examples.send("GET", f"{machine}/instanceView", VERSION).json()
        summary = view["patchStatus"]["availablePatchSummary"]
        assert summary["criticalAndSecurityPatchCount"] + summary["otherPatchCount"] == 2

    def test_azure_powershell(self, examples: Examples) -> None:
        cmdlet = azure_powershell.translate('Get-AzVM -ResourceGroupName "myResourceGroup" -Name "myVM" -Status')
        assert cmdlet.others == {"ResourceGroupName": "myResourceGroup", "Name": "myVM", "Status": "True"}
        query = {"$expand": "instanceView"}
        document = examples.send("GET", examples.machine("Linux"), NEWEST, None, **query).json()
        assert "statuses" in document["properties"]["instanceView"]

    def test_azure_cli(self, examples: Examples) -> None:
        command = "az vm get-instance-view --resource-group myResourceGroup --name myVM"
        document = examples.az(command, examples.machine("Linux")).json()
        assert "statuses" in document["properties"]["instanceView"]


class TestDisableAutomaticVMGuestPatching:
    @pytest.mark.parametrize(
        ("system", "automatic_updates", "mode", "status"),
        [
            ("Linux", None, "ImageDefault", 200),
            ("Windows", True, "AutomaticByOS", 200),
            ("Windows", True, "Manual", 400),
        ],
    )
    def test_patch_modes(
        self, examples: Examples, system: str, automatic_updates: bool | None, mode: str, status: int
    ) -> None:
        machine = examples.machine(system)
        body = LINUX_MODE if system == "Linux" else WINDOWS_MODE
        examples.follow(examples.send("PUT", machine, VERSION, body | {"location": "westeurope"}))
        half: dict[str, Any] = {"patchSettings": {"patchMode": mode}}
        if automatic_updates is not None:
            half["enableAutomaticUpdates"] = automatic_updates
        profile = {"windowsConfiguration" if system == "Windows" else "linuxConfiguration": half}
        changed = {"location": "westeurope", "properties": {"osProfile": profile}}
        reply = examples.send("PUT", machine, VERSION, changed)
        assert reply.status_code == status, reply.text
        if status == 200:
            examples.follow(reply)
            assert patch_mode(examples, machine) == mode


class TestOnDemandPatchAssessment:
    def test_rest_api(self, examples: Examples) -> None:
        reply = examples.send("POST", f"{examples.machine('Linux', pendingPatches=4)}/assessPatches", VERSION)
        assert len(examples.follow(reply)["availablePatches"]) == 4

    def test_azure_powershell(self, examples: Examples) -> None:
        cmdlet = azure_powershell.translate(
            'Invoke-AzVmPatchAssessment -ResourceGroupName "myResourceGroup" -VMName "myVM"'
        )
        assert cmdlet.body == {}
        examples.follow(examples.send("POST", f"{examples.machine('Linux')}/assessPatches", NEWEST))

    def test_azure_cli(self, examples: Examples) -> None:
        command = "az vm assess-patches --resource-group myResourceGroup --name myVM"
        examples.follow(examples.az(command, examples.machine("Linux")))


class TestOnDemandPatchInstallation:
    @pytest.mark.parametrize(("system", "half"), [("Linux", "linuxParameters"), ("Windows", "windowsParameters")])
    def test_rest_api(self, examples: Examples, system: str, half: str) -> None:
        body = {
            "maximumDuration": "PT1H",
            "rebootSetting": "IfRequired",
            half: {"classificationsToInclude": ["Critical", "Security"]},
        }
        reply = examples.send("POST", f"{examples.machine(system, pendingPatches=3)}/installPatches", VERSION, body)
        assert examples.follow(reply)["failedPatchCount"] == 0

    @pytest.mark.parametrize(
        ("system", "command", "body"),
        [
            (
                "Linux",
                'Invoke-AzVmInstallPatch -ResourceGroupName "myResourceGroup" -VMName "myVM" -MaximumDuration "PT90M"'
                ' -RebootSetting "Always" -Linux -ClassificationToIncludeForLinux "Security"'
                ' -PackageNameMaskToInclude ["package123"] -PackageNameMaskToExclude ["package567"]',
                {
                    "maximumDuration": "PT90M",
                    "rebootSetting": "Always",
                    "linuxParameters": {
                        "classificationsToInclude": ["Security"],
                        "packageNameMasksToInclude": ["package123"],
                        "packageNameMasksToExclude": ["package567"],
                    },
                },
            ),
            (
                "Windows",
                'Invoke-AzVmInstallPatch -ResourceGroupName "myResourceGroup" -VMName "myVM" -MaximumDuration "PT2H"'
                ' -RebootSetting "Never" -Windows   -ClassificationToIncludeForWindows Critical',
                {
                    "maximumDuration": "PT2H",
                    "rebootSetting": "Never",
                    "windowsParameters": {"classificationsToInclude": ["Critical"]},
                },
            ),
            (
                "Windows",
                'Invoke-AzVmInstallPatch -ResourceGroupName "myResourceGroup" -VMName "myVM" -MaximumDuration "PT90M"'
                ' -RebootSetting "Always" -Windows -ClassificationToIncludeForWindows "Security"'
                ' -KBNumberToInclude ["KB1234567", "KB123567"] -KBNumberToExclude ["KB1234702", "KB1234802"]'
                " -ExcludeKBsRequiringReboot",
                {
                    "maximumDuration": "PT90M",
                    "rebootSetting": "Always",
                    "windowsParameters": {
                        "classificationsToInclude": ["Security"],
                        "kbNumbersToInclude": ["KB1234567", "KB123567"],
                        "kbNumbersToExclude": ["KB1234702", "KB1234802"],
                        "excludeKbsRequiringReboot": True,
                    },
                },
            ),
        ],
        ids=["certain packages on Linux", "critical on Windows", "security with KB ids on Windows"],
    )
    def test_azure_powershell(self, examples: Examples, system: str, command: str, body: Json) -> None:
        cmdlet = azure_powershell.translate(command)
        assert cmdlet.body == body
        machine = examples.machine(system, pendingPatches=2)
        examples.follow(examples.send("POST", f"{machine}/installPatches", NEWEST, cmdlet.body))

    @pytest.mark.parametrize(
        ("system", "command"),
        [
            (
                "Linux",
                "az vm install-patches --resource-group myResourceGroup --name myVM --maximum-duration PT2H"
                " --reboot-setting IfRequired --classifications-to-include-linux Critical",
            ),
            (
                "Windows",
                "az vm install-patches --resource-group myResourceGroup --name myVM --maximum-duration PT2H"
                " --reboot-setting IfRequired --classifications-to-include-win Critical Security"
                " --exclude-kbs-requiring-reboot true",
            ),
        ],
        ids=["critical on Linux", "critical and security on Windows"],
    )
    def test_azure_cli(self, examples: Examples, system: str, command: str) -> None:
        result = examples.follow(examples.az(command, examples.machine(system, pendingPatches=3)))
        assert result["failedPatchCount"] == 0

    def test_a_request_that_selects_nothing_is_refused(self, examples: Examples) -> None:
        body = {"maximumDuration": "PT1H", "rebootSetting": "IfRequired", "windowsParameters": {}}
        refused = examples.send("POST", f"{examples.machine('Windows')}/installPatches", VERSION, body)
        assert refused.status_code == 400
