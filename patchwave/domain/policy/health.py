"""The health section of a policy: which signals are checked, and which alerts are a veto."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StrictBool

from patchwave.domain.core.documents import Document
from patchwave.domain.core.duration import Duration, between
from patchwave.domain.policy.http_probe import Probe

MAX_AGE = timedelta(days=30)
"""How long Azure keeps alerts."""
MAX_SETTLE = timedelta(hours=2)


class Severity(StrEnum):
    """How bad an alert is: ``Sev0`` is the worst."""

    SEV0 = "Sev0"
    SEV1 = "Sev1"
    SEV2 = "Sev2"
    SEV3 = "Sev3"
    SEV4 = "Sev4"


class AlertVeto(Document):
    """Which alerts keep a machine from being patched while they fire on it."""

    severities: list[Severity] = Field(
        default=[Severity.SEV0, Severity.SEV1],
        min_length=1,
        title="Severities",
        description="Alerts of these severities count.",
    )
    rules: list[Annotated[str, Field(min_length=1, max_length=260)]] = Field(
        default=[],
        max_length=50,
        title="Rules",
        description="Names of alert rules; with names, alerts of other rules do not count.",
        examples=[["cpu-high"]],
    )
    fired_within: Annotated[
        Duration, between(timedelta(minutes=5), MAX_AGE, "must be from PT5M to PT720H, for which Azure keeps alerts")
    ] = Field(
        default=timedelta(hours=24),
        title="Fired within",
        description="Alerts that fired longer ago do not count: those of stateless rules stay fired until a person"
        " closes them. At most PT720H.",
        examples=["PT24H"],
        json_schema_extra={"default": "PT24H"},
    )


class Health(Document):
    """How the health of each machine is checked before and after its installation."""

    enabled: StrictBool = Field(
        default=True,
        title="Enabled",
        description="Whether health is checked. Power, VM agent and the Application Health extension always count when"
        " it is. Alerts count either way.",
    )
    resource_health: StrictBool = Field(
        default=True, title="Resource Health", description="Whether Azure Resource Health is asked as well."
    )
    probe: Probe | None = Field(
        default=None, title="Probe", description="An HTTP request to the machine's own service; none unless given."
    )
    alerts: AlertVeto | None = Field(
        default=None,
        title="Alerts",
        description="Do not patch a machine while Azure Monitor alerts fire on it; {} takes the defaults. Alerts do not"
        " count unless given.",
    )
    settle: Annotated[Duration, between(timedelta(0), MAX_SETTLE, "must be at most PT2H")] = Field(
        default=timedelta(minutes=15),
        title="Settle",
        description="How long a machine may take after its installation to be as healthy as before, at most PT2H; PT0M"
        " judges at the first check.",
        examples=["PT15M"],
        json_schema_extra={"default": "PT15M"},
    )

    @property
    def is_wanted(self) -> bool:
        return self.enabled or self.alerts is not None
