"""Machines that every run leaves out: held by a tag, hibernated, or of an unknown operating system."""

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
