"""Machines whose image is past its end of life."""

from collections.abc import Iterator

from patchwave.domain.drift import remediation
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.fleet.supported_images import Image


def check_images(index: FleetIndex) -> Iterator[Finding]:
    """One finding for each machine whose image had its last day with updates before this one, in UTC."""
    today = index.now.date()
    for _, machine in sorted(index.machines.items()):
        ended = machine.eligibility.end_of_life
        if ended is None or ended >= today:
            continue
        image = Image.parse(machine.found.image)
        name = image.name if image else machine.found.image
        evidence = (
            f"Its image {name} reached its end of life on {ended}: its publisher makes no updates for it any more, and"
            " Azure takes such images off its table. A paid channel of updates, or another date, is a setting of the"
            " app (PATCHWAVE_IMAGE_END_OF_LIFE)."
        )
        location = machine.found.location
        fix = remediation.list_offers(image.publisher, location) if image else remediation.show(machine.found.id)
        yield Finding(kind=FindingKind.END_OF_LIFE, subject=machine.found.id, evidence=evidence, fix=fix)
