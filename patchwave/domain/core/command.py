"""Commands of people: who gives them and why, and the errors of those that cannot be carried out."""

from patchwave.domain.core.documents import UtcDatetime
from patchwave.domain.core.principal import Signed


class Command(Signed):
    """What a person asked for: who, why and when."""

    reason: str = ""
    at: UtcDatetime


class InvalidTransition(Exception):
    """The command cannot be carried out any more, or contradicts another one; the text says why."""


class SelfApproval(Exception):
    """Another person has to give the command; the text says why."""
