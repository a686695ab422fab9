"""Gates: what can hold or stop a run between its steps. Error budgets and approvals; health is in `machine.health`."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from patchwave.domain.core.documents import Document
from patchwave.domain.core.duration import Duration, between
from patchwave.domain.core.quantity import Share

MAX_APPROVAL = timedelta(days=30)


class Approval(Document):
    """A person has to say yes. Saying nothing is a no."""

    within: Annotated[Duration, between(timedelta(minutes=1), MAX_APPROVAL, "must be from PT1M to PT720H")] = Field(
        default=timedelta(hours=24),
        title="Within",
        description="How long to wait for the approval, from PT1M to PT720H; the answer is no after that.",
        examples=["PT24H"],
        # The library writes a day as P1D into the schema, which no policy may hold.
        json_schema_extra={"default": "PT24H"},
    )
    require_second_person: bool = Field(
        default=False,
        title="Require a second person",
        description="A second person has to approve: neither the author of the policy nor a person who started or"
        " retried the run. Needs PATCHWAVE_AUTHORIZATION=roles, an app setting: a function key does not say who calls.",
    )


class OnExceeded(StrEnum):
    """What happens to the run when an error budget is used up."""

    HOLD = "hold"
    """The scope, and whatever comes behind it, starts nothing more until a person resumes or cancels the run."""
    END = "end"
    """The run starts nothing more and ends when the machines in progress have ended."""


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
        description="hold: start nothing more there, nor in the waves, phases and rings behind it, until a person"
        " resumes or cancels the run; end: end the run.",
    )


def wave_barrier_enabled(budget: ErrorBudget, bake: timedelta | float | None) -> bool:
    """Whether a wave waits for the end of the one before it: when that has to bake, or is judged as a whole."""
    return bake is not None or budget.wave is not None
