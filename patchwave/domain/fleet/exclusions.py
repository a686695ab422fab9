"""Machines that every run leaves out: held by a tag, hibernated, not connected, or of an unknown operating system."""

from collections.abc import Mapping

from patchwave.domain.core.outcome import Outcome, Reason

HOLD_TAG = "patchwave-hold"
"""A tag of this name keeps a machine out of every run; its value is shown as the reason."""
_NO_HOLD = ("", "false", "no", "0", "off")


def hold_reason(tags: Mapping[str, str]) -> str | None:
    """The sentence when a tag keeps the machine out of runs; tag names ignore case, as in Azure."""
    for name, value in tags.items():
        if name.casefold() == HOLD_TAG and value.strip().casefold() not in _NO_HOLD:
            return f"The tag {HOLD_TAG} holds this machine: {value.strip()}"
    return None


def hibernated() -> Outcome:
    """The outcome of a machine that is hibernated. To put it back after a start would lose what it had in memory."""
    return Outcome.skipped(
        Reason.HIBERNATED,
        "The machine is hibernated: a start would end its session, so it is left alone; resume it to have it patched.",
    )


def unknown_system() -> Outcome:
    """The outcome of a machine of which Azure does not tell the operating system: every call asks for it."""
    return Outcome.skipped(Reason.UNSUPPORTED, "Azure does not tell whether the machine runs Windows or Linux.")


CONNECTED = "connected"
"""The status of an Arc machine whose agent reports, in lower case."""
_NOT_CONNECTED = {
    "disconnected": "its agent has not reported for 15 minutes or more: the machine is off, or the agent or the network"
    " is down, and Azure cannot start it; bring it back",
    "expired": "its enrolment has expired, as its agent did not report for 45 days: connect it again with azcmagent",
    "error": "its agent reports an error: see azcmagent show on the machine",
}


def not_connected(status: str) -> Outcome:
    """The outcome of an Arc machine with a status other than Connected, in whatever case."""
    why = _NOT_CONNECTED.get(status.casefold(), "look at its agent with azcmagent show")
    return Outcome.skipped(Reason.NOT_CONNECTED, f"The Arc machine is {status or 'of no known status'}: {why}.")
