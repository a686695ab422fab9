"""Azure Monitor alerts as a veto: a machine with a firing alert is not patched.

Source: "Alerts - Get All" of Microsoft.AlertsManagement.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AliasPath, BeforeValidator, Field

from patchwave.domain.azure.errors import ArmFailure, classify
from patchwave.domain.azure.patch_results import Text
from patchwave.domain.core.documents import ExternalDocument, LenientDatetime, object_or_none
from patchwave.domain.core.folding import fold
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.policy.health import AlertVeto

_SHOWN = 3


class _Essentials(ExternalDocument):
    severity: Text = ""
    alert_state: Text = ""
    monitor_condition: Text = ""
    alert_rule: Text = ""
    target_resource: Text = ""
    start_date_time: LenientDatetime = None


class Alert(ExternalDocument):
    """One alert as Azure lists it; ``essentials`` are the fields that all monitor services share."""

    name: Text = ""
    essentials: Annotated[_Essentials, BeforeValidator(lambda value: object_or_none(value) or {})] = Field(
        default_factory=_Essentials, validation_alias=AliasPath("properties", "essentials")
    )

    @property
    def rule(self) -> str:
        """The name of the rule, out of its ARM id where there is one."""
        return self.essentials.alert_rule.rstrip("/").rpartition("/")[2] or self.name

    def is_firing(self, machine_id: str, veto: AlertVeto, now: datetime) -> bool:
        """Whether it counts: it fires, on this machine, as the veto describes, and is not closed.

        What the answer leaves out counts: silence must not make a veto disappear.
        """
        said = self.essentials
        wanted = {severity.value.casefold() for severity in veto.severities}
        rules = {name.casefold() for name in veto.rules}
        return (
            said.monitor_condition.casefold() in ("fired", "")
            and said.alert_state.casefold() != "closed"
            and fold(said.target_resource) in (fold(machine_id), "")
            and (said.severity.casefold() in wanted or not said.severity)
            and (not rules or bool(rules & {self.rule.casefold(), self.name.casefold()}))
            and (said.start_date_time is None or said.start_date_time >= now - veto.fired_within)
        )


def evaluate_alerts(alerts: Sequence[Alert], machine_id: str, veto: AlertVeto, now: datetime) -> Outcome | None:
    """The outcome of a machine on which an alert fires; ``None`` when none does."""
    firing = [alert for alert in alerts if alert.is_firing(machine_id, veto, now)]
    if not firing:
        return None
    shown = ", ".join(
        f"{alert.rule or 'an alert without a name'} ({alert.essentials.severity or 'severity unknown'})"
        for alert in firing[:_SHOWN]
    )
    more = f" and {len(firing) - _SHOWN} more" if len(firing) > _SHOWN else ""
    return Outcome.skipped(
        Reason.ALERT_FIRING,
        f"Not patched while Azure Monitor alerts fire on it: {shown}{more}. Solve or close them, then retry.",
    )


def alerts_unknown(failure: ArmFailure) -> Outcome:
    """The outcome of a machine whose alerts could not be read: a "no" is never guessed."""
    return Outcome.skipped(
        classify(failure).reason,
        "Not patched: the policy asks whether an alert fires, and Azure Monitor could not be asked. The identity"
        f" needs Microsoft.AlertsManagement/alerts/read on the subscription. ({failure.text})",
    )
