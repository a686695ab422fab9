"""The usual script: a pool of threads, and ``begin_…().result()`` of the SDK for each machine.

``python -m benchmarks.peers.script --endpoint URL --subscription ID --threads N --polling-interval SECONDS``

Everything is the SDK's default: the credential, retries, polling. Only the polling interval, 30 s unless Azure says
otherwise, is divided by the speed of the simulated clock. The pool has a thread for each machine: with Python's own
default, a few more than there are processors, machines would wait for each other for days.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

from azure.core.exceptions import AzureError
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute.models import LinuxParameters, VirtualMachineInstallPatchesParameters, WindowsParameters


def patch(client: ComputeManagementClient, machine: Any) -> bool:
    """Assess a machine and install its patches; whether both went well."""
    group = str(machine.id).split("/")[4]
    is_windows = machine.storage_profile.os_disk.os_type == "Windows"
    wanted = ["Critical", "Security"]
    parameters = VirtualMachineInstallPatchesParameters(
        maximum_duration=timedelta(hours=4),
        reboot_setting="IfRequired",
        windows_parameters=WindowsParameters(classifications_to_include=wanted) if is_windows else None,
        linux_parameters=None if is_windows else LinuxParameters(classifications_to_include=wanted),
    )
    try:
        client.virtual_machines.begin_assess_patches(group, machine.name).result()
        result = client.virtual_machines.begin_install_patches(group, machine.name, parameters).result()
    except AzureError as error:
        sys.stderr.write(f"{machine.name}: {str(error)[:200]}\n")
        return False
    return result.status == "Succeeded"


def main() -> int:
    """Patch every machine of a subscription; prints ``{"patched": n}``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.script")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--subscription", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--polling-interval", type=float, required=True)
    options = parser.parse_args()
    client = ComputeManagementClient(
        DefaultAzureCredential(),
        options.subscription,
        base_url=options.endpoint,
        credential_scopes=[f"{options.endpoint}/.default"],
        polling_interval=options.polling_interval,
    )
    machines: list[Any] = list(client.virtual_machines.list_all())
    with ThreadPoolExecutor(options.threads) as pool:
        patched = sum(pool.map(partial(patch, client), machines))
    sys.stdout.write(json.dumps({"patched": patched}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
