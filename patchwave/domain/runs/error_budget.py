"""Error budgets of a running run: which machines count as failures, and which scopes are used up."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from patchwave.domain.core.documents import Document
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.core.quantity import portion
from patchwave.domain.policy.gates import ErrorBudget

_FAILURES = frozenset({OutcomeKind.FAILED, OutcomeKind.TIMED_OUT, OutcomeKind.UNKNOWN})
_FAILED_REASONS = frozenset({Reason.HOOK_FAILED, Reason.REBOOT_FAILED})


def counts_as_failure(outcome: OutcomeKind, reason: str) -> bool:
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


class ErrorBudgetExceeded(Document):
    """An error budget is used up: ``scope`` starts nothing more, or the run ends."""

    run_id: str
    scope: str
    failures: int
    limit: int
    ends_run: bool
