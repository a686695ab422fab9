"""Microsoft's own clients work against the simulator unchanged: azure-identity and azure-mgmt-compute."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.compute.aio import ComputeManagementClient

from tests.support.simulator import MACHINES, SUBSCRIPTION, Simulator


@pytest.fixture
async def compute(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ComputeManagementClient]:
    for name, value in simulator.ready["environment"].items():
        monkeypatch.setenv(name, value)
    arm = simulator.ready["arm"]
    async with (
        DefaultAzureCredential() as credential,
        ComputeManagementClient(
            credential,
            SUBSCRIPTION,
            base_url=arm,
            credential_scopes=[f"{arm}/.default"],
            polling_interval=0,
            # aiohttp reads SSL_CERT_FILE once per process, and another test may have been first.
            connection_verify=simulator.ready["ca"],
        ) as client,
    ):
        yield client


async def test_lists_page_and_machines_read(compute: ComputeManagementClient) -> None:
    names = [machine.name async for machine in compute.virtual_machines.list_all()]
    assert sorted(str(name) for name in names) == [f"vm-{number:03d}" for number in range(MACHINES)]
    machine = await compute.virtual_machines.get("rg-sim", "vm-000", expand="instanceView")
    assert machine.instance_view is not None
    view = await compute.virtual_machines.instance_view("rg-sim", "vm-000")
    assert [status.code for status in view.statuses or []] == [
        status.code for status in machine.instance_view.statuses or []
    ]


async def test_a_post_without_polling_hands_back_both_urls(
    simulator: Simulator, compute: ComputeManagementClient
) -> None:
    one = simulator.take()
    seen: list[Any] = []
    await compute.virtual_machines.begin_assess_patches(
        "rg-sim",
        one.rsplit("/", 1)[1],
        polling=False,
        retry_total=0,
        api_version="2025-04-01",
        raw_response_hook=lambda reply: seen.append(reply.http_response),
    )
    assert seen[0].status_code == 202
    assert "api-version=2025-04-01" in seen[0].headers["Azure-AsyncOperation"]
    assert seen[0].headers["Location"]


async def test_the_sdk_follows_an_installation_to_its_result(
    simulator: Simulator, compute: ComputeManagementClient
) -> None:
    one = simulator.take_system("Linux", pendingPatches=2, installMinutes=1, rebootRequired=False)
    body: Any = {
        "maximumDuration": "PT2H",
        "rebootSetting": "Never",
        "linuxParameters": {"classificationsToInclude": ["Critical", "Security", "Other"]},
    }
    poller = await compute.virtual_machines.begin_install_patches("rg-sim", one.rsplit("/", 1)[1], body)
    result = await poller.result()
    assert result.status == "Succeeded"
    assert result.installed_patch_count == 2
