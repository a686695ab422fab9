"""The image of a machine: the one that its fleet file names, marketplace or custom, in both views of Azure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.machine_views import graph_row, model
from local.azure_simulator.fleet import read_fleet
from tests.support.simulator import machine_id

GROUP = machine_id(1).partition("/providers/")[0]
GALLERY = f"{GROUP}/providers/Microsoft.Compute/galleries/ours/images/golden/versions/1.0.0"
BY_DEFAULT = {
    "publisher": "Canonical",
    "offer": "0001-com-ubuntu-server-jammy",
    "sku": "22_04-lts-gen2",
    "version": "latest",
    "exactVersion": "1.0.20261110",
}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, BY_DEFAULT),
        ({"id": GALLERY}, {"id": GALLERY}),
        ({"communityGalleryImageId": "/CommunityGalleries/a"}, {"communityGalleryImageId": "/CommunityGalleries/a"}),
        ({"sharedGalleryImageId": "/SharedGalleries/a"}, {"sharedGalleryImageId": "/SharedGalleries/a"}),
        (
            {"publisher": "RedHat", "offer": "RHEL", "sku": "9_4"},
            BY_DEFAULT | {"publisher": "RedHat", "offer": "RHEL", "sku": "9_4"},
        ),
    ],
)
def test_the_image_is_the_one_that_the_file_names(tmp_path: Path, given: Any, shown: dict[str, str]) -> None:
    storage = {"osDisk": {"osType": "Linux"}} | ({"imageReference": given} if given else {})
    entry = {"id": machine_id(1), "location": "westeurope", "storageProfile": storage}
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps([entry]))
    [machine] = read_fleet(path, Clock(60), 1).machines
    for view in (model(machine), graph_row(machine, "tenant")):
        profile = view["properties"]["storageProfile"]
        assert profile["imageReference"] == shown
        assert profile["osDisk"]["osType"] == "Linux"
