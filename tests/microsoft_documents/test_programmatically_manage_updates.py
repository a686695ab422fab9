"""The examples of "How to programmatically manage updates for Azure VMs", each under its heading.

Changed beside ids and dates: the KB ids, which Azure takes with their prefix only (recorded), and the reboot settings
of the table, which the API calls ``Never`` and ``Always``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import pytest

from tests.support import azure_powershell
from tests.support.document_examples import NEWEST, Examples
from tests.support.simulator import SUBSCRIPTION, Json

VERSION = "2020-12-01"
MAINTENANCE_VERSION = "2021-09-01-preview"
MAINTENANCE = "/providers/Microsoft.Maintenance"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/atscalepatching"
CONFIGURATIONS = f"{GROUP}{MAINTENANCE}/maintenanceConfigurations"
CONFIGURATION: Json = {
    "location": "eastus2euap",
    "properties": {
        "namespace": None,
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceScope": "InGuestPatch",
        "maintenanceWindow": {
            "startDateTime": "2021-08-21 01:18",
            "expirationDateTime": "2221-05-19 03:30",
            "duration": "01:30",
            "timeZone": "India Standard Time",
            "recurEvery": "Day",
        },
        "visibility": "Custom",
        "installPatches": {
            "rebootSetting": "IfRequired",
            "windowsParameters": {"classificationsToInclude": ["Security", "Critical", "UpdateRollup"]},
            "linuxParameters": {"classificationsToInclude": ["Other"]},
        },
    },
}
DEPLOYMENT: Json = {
    "maximumDuration": "PT120M",
    "rebootSetting": "IfRequired",
    "windowsParameters": {
        "classificationsToInclude": ["Security", "UpdateRollup", "FeaturePack", "ServicePack"],
        "kbNumbersToInclude": ["11111111111", "22222222222222"],
        "kbNumbersToExclude": ["333333333333", "55555555555"],
    },
}
_numbers = count()


def created(examples: Examples) -> str:
    """The id of a configuration of its own."""
    path = f"{CONFIGURATIONS}/TestAzureInGuestAdv{next(_numbers)}"
    reply = examples.send("PUT", path, MAINTENANCE_VERSION, CONFIGURATION)
    assert reply.status_code == 200, reply.text
    return path


def names_when(examples: Examples, query: str, is_expected: Callable[[list[str]], bool]) -> list[str]:
    """The names that Resource Graph finds, which lags behind, once they are as expected."""
    deadline = time.monotonic() + 10
    while True:
        path = "/providers/Microsoft.ResourceGraph/resources"
        names = [each["name"] for each in examples.send("POST", path, "2021-03-01", {"query": query}).json()["data"]]
        if is_expected(names) or time.monotonic() > deadline:
            return names
        time.sleep(0.02)


class TestUpdateAssessment:
    def test_rest_api(self, examples: Examples) -> None:
        reply = examples.send("POST", f"{examples.machine('Windows')}/assessPatches", VERSION)
        assert examples.follow(reply)["status"] == "Succeeded"

    def test_azure_cli(self, examples: Examples) -> None:
        reply = examples.az("az vm assess-patches -g MyResourceGroup -n MyVm", examples.machine("Linux"))
        assert examples.follow(reply)["status"] == "Succeeded"

    def test_azure_powershell(self, examples: Examples) -> None:
        cmdlet = azure_powershell.translate('Invoke-AzVMPatchAssessment -ResourceGroupName "myRG" -VMName "myVM"')
        assert (cmdlet.body, cmdlet.others) == ({}, {"ResourceGroupName": "myRG", "VMName": "myVM"})


class TestUpdateDeployment:
    def test_rest_api(self, examples: Examples) -> None:
        machine = examples.machine("Windows")
        refused = examples.send("POST", f"{machine}/installPatches", VERSION, DEPLOYMENT)
        assert refused.status_code == 400
        assert "It must be a KBID such as KB4512508" in refused.json()["error"]["message"]
        given = DEPLOYMENT["windowsParameters"]
        prefixed = {key: [f"KB{each}" for each in given[key]] for key in given if key.startswith("kb")}
        body = DEPLOYMENT | {"windowsParameters": given | prefixed}
        result = examples.follow(examples.send("POST", f"{machine}/installPatches", VERSION, body))
        assert result["status"] == "Succeeded"

    def test_azure_cli(self, examples: Examples) -> None:
        command = (
            "az vm install-patches -g MyResourceGroup -n MyVm --maximum-duration PT4H"
            " --reboot-setting IfRequired --classifications-to-include-linux Critical"
        )
        assert examples.follow(examples.az(command, examples.machine("Linux")))["status"] == "Succeeded"

    def test_azure_powershell(self, examples: Examples) -> None:
        cmdlet = azure_powershell.translate(
            "Invoke-AzVmInstallPatch -ResourceGroupName 'MyRG' -VmName 'MyVM' -Windows -RebootSetting 'never'"
            " -MaximumDuration PT2H -ClassificationToIncludeForWindows Critical"
        )
        machine = examples.machine("Windows")
        reply = examples.send("POST", f"{machine}/installPatches", NEWEST, cmdlet.body)
        assert examples.follow(reply)["rebootStatus"] in ("NotNeeded", "Required")

    @pytest.mark.parametrize("setting", ["NeverReboot", "AlwaysReboot"])
    def test_the_reboot_settings_of_the_table_are_refused(self, examples: Examples, setting: str) -> None:
        body = DEPLOYMENT | {"rebootSetting": setting}
        refused = examples.send("POST", f"{examples.machine('Windows')}/installPatches", VERSION, body)
        assert (refused.status_code, refused.json()["error"]["target"]) == (400, "rebootSetting")


class TestCreateAMaintenanceConfigurationSchedule:
    def test_rest_api(self, examples: Examples) -> None:
        stored = examples.send("GET", created(examples), MAINTENANCE_VERSION).json()["properties"]
        given = CONFIGURATION["properties"]
        assert stored["maintenanceWindow"] == given["maintenanceWindow"]
        assert stored["installPatches"] == given["installPatches"]
        assert stored["extensionProperties"] == {"InGuestPatchMode": "User"}
        assert "namespace" not in stored

    def test_azure_cli(self, examples: Examples) -> None:
        command = """az maintenance configuration create \\
           --resource-group myMaintenanceRG \\
           --resource-name myConfig \\
           --maintenance-scope InGuestPatch \\
           --location eastus \\
           --maintenance-window-duration "02:00" \\
           --maintenance-window-recur-every "20days" \\
           --maintenance-window-start-date-time "2022-12-30 07:00" \\
           --maintenance-window-time-zone "Pacific Standard Time" \\
           --install-patches-linux-parameters package-name-masks-to-exclude="ppt" package-name-masks-to-include="apt" \\
             classifications-to-include="Other" \\
           --install-patches-windows-parameters kb-numbers-to-exclude="KB123456" kb-numbers-to-include="KB123456" \\
             classifications-to-include="FeaturePack" \\
           --reboot-setting "IfRequired" \\
           --extension-properties InGuestPatchMode="User"
        """
        reply = examples.az(command)
        assert reply.status_code == 200, reply.text
        properties = reply.json()["properties"]
        assert properties["maintenanceWindow"]["recurEvery"] == "20days"
        assert properties["installPatches"]["linuxParameters"] == {
            "packageNameMasksToExclude": ["ppt"],
            "packageNameMasksToInclude": ["apt"],
            "classificationsToInclude": ["Other"],
        }

    def test_azure_powershell(self, examples: Examples) -> None:
        cmdlet = azure_powershell.translate(
            """New-AzMaintenanceConfiguration
               -ResourceGroup $RGName `
               -Name $configName `
               -MaintenanceScope $scope `
               -Location $location `
               -StartDateTime $startDateTime `
               -TimeZone $timeZone `
               -Duration $duration `
               -RecurEvery $recurEvery `
               -WindowParameterClassificationToInclude $WindowsParameterClassificationToInclude `
               -WindowParameterKbNumberToInclude $WindowParameterKbNumberToInclude `
               -WindowParameterKbNumberToExclude $WindowParameterKbNumberToExclude `
               -InstallPatchRebootSetting $RebootOption `
               -LinuxParameterPackageNameMaskToInclude $LinuxParameterPackageNameMaskToInclude `
               -LinuxParameterClassificationToInclude $LinuxParameterClassificationToInclude `
               -LinuxParameterPackageNameMaskToExclude $LinuxParameterPackageNameMaskToExclude `
               -ExtensionProperty @{"InGuestPatchMode"="User"}
            """,
            {
                "RGName": "atscalepatching",
                "configName": "ofPowerShell",
                "scope": "InGuestPatch",
                "location": "eastus",
                "startDateTime": "2022-12-30 07:00",
                "timeZone": "Pacific Standard Time",
                "duration": "02:00",
                "recurEvery": "Day",
                "WindowsParameterClassificationToInclude": ["FeaturePack"],
                "WindowParameterKbNumberToInclude": ["KB123456"],
                "WindowParameterKbNumberToExclude": ["KB123457"],
                "RebootOption": "IfRequired",
                "LinuxParameterPackageNameMaskToInclude": ["apt"],
                "LinuxParameterClassificationToInclude": ["Other"],
                "LinuxParameterPackageNameMaskToExclude": ["ppt"],
            },
        )
        reply = examples.send("PUT", f"{CONFIGURATIONS}/ofPowerShell", MAINTENANCE_VERSION, cmdlet.body)
        assert reply.status_code == 200, reply.text
        patches = reply.json()["properties"]["installPatches"]
        assert patches["windowsParameters"]["kbNumbersToExclude"] == ["KB123457"]
        assert patches["linuxParameters"]["packageNameMasksToExclude"] == ["ppt"]

    @pytest.mark.parametrize(
        "recur_every",
        [
            *["Day", "3Days", "3Weeks", "Week Saturday, Sunday", "Month day23, day24", "Month day23,day24"],
            *["Month Last Sunday", "Month Fourth Monday"],
        ],
    )
    def test_recurrences_of_the_table(self, examples: Examples, recur_every: str) -> None:
        window = CONFIGURATION["properties"]["maintenanceWindow"] | {"recurEvery": recur_every}
        body = CONFIGURATION | {"properties": CONFIGURATION["properties"] | {"maintenanceWindow": window}}
        reply = examples.send("PUT", f"{CONFIGURATIONS}/recurrences", MAINTENANCE_VERSION, body)
        assert reply.status_code == 200, reply.text

    @pytest.mark.parametrize("recur_every", ["Month", "2Months"])
    def test_months_without_a_day_are_refused(self, examples: Examples, recur_every: str) -> None:
        window = CONFIGURATION["properties"]["maintenanceWindow"] | {"recurEvery": recur_every}
        body = CONFIGURATION | {"properties": CONFIGURATION["properties"] | {"maintenanceWindow": window}}
        refused = examples.send("PUT", f"{CONFIGURATIONS}/recurrences", MAINTENANCE_VERSION, body)
        assert refused.status_code == 400


class TestAssociateAVMWithASchedule:
    def test_rest_api(self, examples: Examples) -> None:
        body = {"properties": {"maintenanceConfigurationId": created(examples)}, "location": "eastus2euap"}
        path = f"{examples.machine('Windows')}{MAINTENANCE}/configurationAssignments/TestAzureInGuestAdv"
        reply = examples.send("PUT", path, MAINTENANCE_VERSION, body)
        assert reply.status_code == 200, reply.text
        assert examples.send("GET", path, MAINTENANCE_VERSION).status_code == 200

    def test_azure_cli(self, examples: Examples) -> None:
        command = f"""az maintenance assignment create \\
           --resource-group myResourceGroup \\
           --location eastus \\
           --resource-name myVM \\
           --resource-type virtualMachines \\
           --provider-name Microsoft.Compute \\
           --configuration-assignment-name myConfig \\
           --maintenance-configuration-id "{created(examples)}"
        """
        reply = examples.az(command, examples.machine("Linux"))
        assert reply.status_code == 200, reply.text

    def test_azure_powershell(self, examples: Examples) -> None:
        configuration, machine = created(examples), examples.machine("Linux")
        cmdlet = azure_powershell.translate(
            f"""New-AzConfigurationAssignment `
               -ResourceGroupName "myResourceGroup" `
               -Location "eastus" `
               -ResourceName "myGuest" `
               -ResourceType "VirtualMachines" `
               -ProviderName "Microsoft.Compute" `
               -ConfigurationAssignmentName "configName" `
               -MaintenanceConfigurationId "{configuration}"
            """
        )
        path = f"{machine}{MAINTENANCE}/configurationAssignments/{cmdlet.others['ConfigurationAssignmentName']}"
        reply = examples.send("PUT", path, MAINTENANCE_VERSION, cmdlet.body)
        assert reply.status_code == 200, reply.text
        assert reply.json()["properties"]["maintenanceConfigurationId"].casefold() == configuration.casefold()


class TestRemoveMachineFromTheSchedule:
    def test_query_and_delete(self, examples: Examples) -> None:
        configuration, machine = created(examples), examples.machine("Linux")
        body = {"properties": {"maintenanceConfigurationId": configuration}, "location": "eastus"}
        path = f"{machine}{MAINTENANCE}/configurationAssignments/ofTheSchedule"
        assert examples.send("PUT", path, MAINTENANCE_VERSION, body).status_code == 200
        query = f"""maintenanceresources
            | where type =~ "microsoft.maintenance/configurationassignments"
            | where properties.maintenanceConfigurationId =~ "{configuration}"
            | where properties.resourceId =~ "{machine}"
            | project name, id"""
        assert names_when(examples, query, lambda names: names != []) == ["ofTheSchedule"]
        deleted = examples.send("DELETE", path, MAINTENANCE_VERSION)
        assert deleted.status_code == 200
        assert names_when(examples, query, lambda names: names == []) == []
