"""What a policy asks for around the scheduled runs of Update Manager: which schedules, and what a failure means.

Everything else is the policy's own, as for its runs: ``startStopped``, ``hooks``, ``scope``, ``notifications``
(docs/adr/0024-pre-and-post-maintenance.md).
"""

from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool

from patchwave.domain.core.documents import Document
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId

MAX_CONFIGURATIONS = 200


def _check_configuration(text: str) -> str:
    return str(ConfigurationId.parse(text))


def _check_different(ids: list[str]) -> list[str]:
    if len({fold(text) for text in ids}) < len(ids):
        raise ValueError("names a configuration twice; ids are compared without case")
    return ids


class MaintenanceHooks(Document):
    """Pre and post maintenance tasks around scheduled runs of Update Manager."""

    configurations: Annotated[
        list[Annotated[str, AfterValidator(_check_configuration)]], AfterValidator(_check_different)
    ] = Field(
        min_length=1,
        max_length=MAX_CONFIGURATIONS,
        title="Configurations",
        description="The ARM ids of maintenance configurations; their pre and post events must reach the app. Of the"
        " machines of a run, those in the policy's scope get pre and post maintenance.",
        examples=[
            [
                "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-updates"
                "/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"
            ]
        ],
    )
    cancel_on_pre_failure: StrictBool = Field(
        default=False,
        title="Cancel on pre-maintenance failure",
        description="Cancel the coming run of the schedule, for all of its machines, when the work before it failed on"
        " any machine or did not end in time. Otherwise Azure patches all the same.",
    )

    def names(self, configuration: ConfigurationId) -> bool:
        """Whether the policy has tasks around the runs of this configuration."""
        return any(fold(text) == configuration.folded for text in self.configurations)
