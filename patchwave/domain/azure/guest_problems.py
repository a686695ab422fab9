"""Troubles inside a guest that the errors of an assessment or installation tell.

Microsoft's page on automatic guest patching asks of guests that the Windows Update service runs, that the update
endpoints, private repositories or WSUS can be reached, and that packagekit is off on Red Hat's systems. Sources of the
codes: "Troubleshoot issues with Azure Update Manager" for Windows; the texts of the Linux patch extension, which cuts
them at 128 characters (``YumPackageManager``, ``AptitudePackageManager``, ``ConfigurePatchingProcessor``). That a
failed refresh of the package lists means a repository out of reach is [inferred].
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from patchwave.domain.core.patches import ReportedError


class GuestProblem(StrEnum):
    """What is wrong in a guest."""

    OLD_AGENT = "old_agent"
    PACKAGEKIT = "packagekit"
    SERVICE_DISABLED = "service_disabled"
    SOURCE_UNREACHABLE = "source_unreachable"


OLD_AGENT_CODE = "CL_AGENT_TOO_OLD"
OLD_AGENT_TEXTS = ("unsupported older azure linux agent version",)
SERVICE_DISABLED_TEXTS = ("0x8024002e", "0x80070422")
WINDOWS_UNREACHABLE_TEXTS = ("0x8024402c", "0x8024401c", "0x8024402f", "0x80072ee2")
LINUX_UNREACHABLE_TEXTS = (
    "cannot retrieve repository metadata",
    "failed to download metadata for repo",
    "cannot find a valid baseurl for repo",
    "temporary failure resolving",
    "could not resolve host",
    "failed to fetch",
    "expired ssl certs",
    "command: sudo apt-get -",
    "command: sudo yum -q",
    "command: sudo zypper r",
)


class _Rule(NamedTuple):
    """An error has the problem when it has the code, or one of the texts in lower case."""

    problem: GuestProblem
    texts: tuple[str, ...]
    code: str = ""

    def holds(self, error: ReportedError) -> bool:
        text = f"{error.code} {error.message}".casefold()
        has_code = bool(self.code) and error.code.casefold() == self.code.casefold()
        return has_code or any(part in text for part in self.texts)


_RULES = (
    _Rule(GuestProblem.OLD_AGENT, OLD_AGENT_TEXTS, OLD_AGENT_CODE),
    # Before the repositories: a package manager that packagekit keeps locked fails with any of its commands.
    _Rule(GuestProblem.PACKAGEKIT, ("packagekit", "holding the yum lock")),
    _Rule(GuestProblem.SERVICE_DISABLED, SERVICE_DISABLED_TEXTS),
    _Rule(GuestProblem.SOURCE_UNREACHABLE, (*WINDOWS_UNREACHABLE_TEXTS, *LINUX_UNREACHABLE_TEXTS)),
)


def find_problems(errors: Iterable[ReportedError]) -> dict[GuestProblem, ReportedError]:
    """The problems that errors tell, each with the first error that tells it; of an error the first rule counts."""
    found: dict[GuestProblem, ReportedError] = {}
    for error in errors:
        rule = next((rule for rule in _RULES if rule.holds(error)), None)
        if rule is not None:
            found.setdefault(rule.problem, error)
    return found
