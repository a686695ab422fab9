"""Gates: what can hold or stop a run between its steps. Error budgets and approvals; health is in `machine.health`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from patchwave.domain.azure.install_request import Duration
from patchwave.domain.core.documents import Document
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.core.quantity import Share, portion

LONGEST_APPROVAL = timedelta(days=30)


def _check_deadline(value: timedelta) -> timedelta:
    if not timedelta(minutes=1) <= value <= LONGEST_APPROVAL:
        raise ValueError("must be from PT1M to PT720H")
    return value


class Approval(Document):
    """A person has to say yes. Saying nothing is a no."""

    within: Annotated[Duration, AfterValidator(_check_deadline)] = Field(
        default=timedelta(hours=24),
        title="Within",
        description="How long to wait for the approval, from PT1M to PT720H; the answer is no after that.",
        examples=["PT24H"],
        # The library writes a day as P1D into the schema, which no policy may hold.
        json_schema_extra={"default": "PT24H"},
    )
    by_other: bool = Field(
        default=False,
        title="By other",
        description="A second person has to approve: neither the author of the policy nor anybody who started or"
        " retried the run. Needs PATCHWAVE_AUTHORIZATION=roles, an app setting: a function key does not say who calls.",
    )


class OnExceeded(StrEnum):
    """What happens to the run when an error budget is used up."""

    HOLD = "hold"
    """The scope, and whatever comes behind it, starts nothing more until somebody resumes or cancels the run."""
    END = "end"
    """The run starts nothing more and ends when the machines under way have ended."""


class ErrorBudget(Document):
    """How many machines may fail, as a number or a per cent of the scope, before it starts nothing more.

    The budget is what may fail: 10 % of 50 machines lets five fail and stops at the sixth. Failed machines go on
    using it: nothing but a person gives it back.
    """

    wave: Share | None = Field(default=None, title="Wave", description="In one wave of a lane.")
    lane: Share | None = Field(default=None, title="Lane", description="In one region of a ring.")
    ring: Share | None = Field(default=None, title="Ring", description="In one ring.")
    run: Share | None = Field(default=None, title="Run", description="In the whole run.")
    on_exceeded: OnExceeded = Field(
        default=OnExceeded.HOLD,
        title="On exceeded",
        description="hold: start nothing more there, nor in the waves, phases and rings behind it, until somebody"
        " resumes or cancels the run; end: end the run.",
    )


def waves_are_barriers(budget: ErrorBudget, bake: timedelta | float | None) -> bool:
    """Whether a wave waits for the end of the one before it: when that has to bake, or is judged as a whole."""
    return bake is not None or budget.wave is not None


_FAILURES = frozenset({OutcomeKind.FAILED, OutcomeKind.TIMED_OUT, OutcomeKind.UNKNOWN})
_FAILED_REASONS = frozenset({Reason.HOOK_FAILED, Reason.REBOOT_FAILED})


def uses_budget(outcome: OutcomeKind, reason: str) -> bool:
    """Whether a machine that ended so counts against the error budgets.

    Skipped machines do not, as nothing was done to them, unless their own pre-hook failed.
    """
    return outcome in _FAILURES or reason in _FAILED_REASONS


@dataclass(slots=True)
class BudgetLedger:
    """Failures by scope, against the budgets.

    Scopes: ``run``, ``ring:{ring}``, ``lane:{ring}/{region}``, ``wave:{ring}/{region}/{wave}``.
    """

    budget: ErrorBudget
    sizes: Mapping[str, int]
    """Machines by scope, for budgets in per cent. A scope without a size is taken as one machine."""
    failures: Counter[str] = field(default_factory=Counter[str])
    forgiven: Counter[str] = field(default_factory=Counter[str])
    """Failures by scope that a person has looked at and accepted."""

    def count(self, scopes: Mapping[str, str]) -> dict[str, str]:
        """Count one failed machine into its scopes; those whose budget it used up.

        Args:
            scopes: scope by level, such as ``{"run": "run", "lane": "lane:broad/westeurope"}``; the answer likewise.
        """
        self.failures.update(scopes.values())
        return {level: scope for level, scope in scopes.items() if self._is_exceeded(level, scope)}

    def forgive(self) -> None:
        """A person says: go on. The next failure in a scope that is over its budget stops it again."""
        self.forgiven = Counter(self.failures)

    def limit(self, level: str, scope: str) -> int | None:
        """How many machines may fail in a scope; ``None`` without a budget."""
        share: int | str | None = getattr(self.budget, level)
        return None if share is None else portion(share, self.sizes.get(scope, 1))

    def _is_exceeded(self, level: str, scope: str) -> bool:
        limit = self.limit(level, scope)
        return limit is not None and self.failures[scope] > max(limit, self.forgiven[scope])
