"""What the planner looks at: the machines, and what Azure says of the places they stand in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineType
from patchwave.domain.core.region_pairs import ARC_REGION, region_name
from patchwave.domain.fleet.scale_sets import ScaleSet


@dataclass(frozen=True, slots=True)
class PlannerMachine:
    """A machine in scope, as far as the plan depends on it. Whatever is not known is empty."""

    id: str
    key: str
    name: str = ""
    subscription: str = ""
    location: str = ""
    zones: tuple[str, ...] = ()
    """Logical zones of the subscription."""
    availability_set: str = ""
    """The ARM id of the set."""
    update_domain: str = ""
    scale_set: str = ""
    """The ARM id of the Flexible scale set that it is a member of."""
    fault_domain: str = ""
    """Its fault domain in the scale set."""
    os_type: str = ""
    image: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    power_state: str = ""
    """``running``, or as Resource Graph writes it, ``PowerState/running``."""
    pending: int | None = None
    """Installable patches of the latest assessment; ``None`` when the machine has not been assessed."""
    predicted_seconds: float | None = None
    """How long an installation took before; ``None`` without a history."""
    time_zone: str = ""
    """The IANA zone of its clock."""

    @property
    def is_arc(self) -> bool:
        return MachineType.of(self.id) is MachineType.ARC

    @property
    def region(self) -> str:
        """The region; of Arc machines one that has no pair and no zones: their location is no failure domain."""
        return ARC_REGION if self.is_arc else region_name(self.location)


@dataclass(frozen=True)
class Topology:
    """Pairs of regions and physical zones. Build it with `of`, which folds every name."""

    pairs: frozenset[tuple[str, str]] = frozenset()
    """Pairs as Azure lists them, region and its pair; they are not symmetric, the rule made of them is."""
    zones: Mapping[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    """Physical zone by subscription, region and logical zone."""
    scale_sets: Mapping[str, ScaleSet] = field(default_factory=dict[str, ScaleSet])
    """Flexible scale sets by folded id."""

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[str, str]] = (),
        zones: Mapping[tuple[str, str, str], str] | None = None,
        scale_sets: Iterable[ScaleSet] = (),
    ) -> Self:
        """A topology from what Azure writes.

        Args:
            pairs: region and its pair, from ``metadata.pairedRegion`` of the locations of a subscription.
            zones: physical zone by (subscription, region, logical zone), from ``availabilityZoneMappings``.
            scale_sets: what is known of those that machines are members of.
        """
        return cls(
            frozenset((region_name(one), region_name(other)) for one, other in pairs),
            {
                (subscription.lower(), region_name(region), zone): physical
                for (subscription, region, zone), physical in (zones or {}).items()
            },
            {fold(each.id): each for each in scale_sets},
        )

    def with_scale_sets(self, scale_sets: Iterable[ScaleSet]) -> Self:
        """The same with these scale sets."""
        return replace(self, scale_sets={fold(each.id): each for each in scale_sets})

    def fault_domain(self, machine: PlannerMachine) -> str:
        """The fault domain of a member; empty while it is not known. With maximum spreading Azure shows one for all."""
        found = self.scale_sets.get(fold(machine.scale_set))
        return machine.fault_domain or ("0" if found is not None and found.fault_domains == 1 else "")

    def unmonitored_set(self, machine: PlannerMachine) -> str:
        """The name of the machine's scale set, if Azure tells that it has no Application Health extension."""
        found = self.scale_sets.get(fold(machine.scale_set)) if machine.scale_set else None
        return found.name if found is not None and found.monitors_health is False else ""

    @cached_property
    def _conflicts(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for one, other in self.pairs:
            if one != other:
                found.setdefault(one, set()).add(other)
                found.setdefault(other, set()).add(one)
        return {region: frozenset(others) for region, others in found.items()}

    def conflicts(self, region: str) -> frozenset[str]:
        """The regions that must not be patched beside this one: its pair, and regions that have it as their pair."""
        return self._conflicts.get(region, frozenset())

    def physical_zone(self, subscription: str, region: str, zone: str) -> str:
        """Which physical zone a logical zone of a subscription is; empty when Azure did not say."""
        return self.zones.get((subscription.lower(), region, zone), "")
