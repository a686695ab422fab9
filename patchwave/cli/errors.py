"""How the command ends: its exit codes, and the errors that carry them."""

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of ``patchwave``; ``INTERRUPTED`` is the shell's own code for Ctrl-C."""

    OK = 0
    NEEDS_PERSON = 1
    """The run failed, was cancelled, or left machines that a person has to look at."""
    REFUSED = 2
    """The service refused the request, a file is wrong, or the command was not used as it is meant."""
    UNREACHABLE = 3
    """The service does not answer, or answers that it is broken."""
    INTERRUPTED = 130


@dataclass(frozen=True)
class Detail:
    """One thing that is wrong: where, as a path into the document, and what."""

    path: str
    message: str


class CommandError(Exception):
    """Ends the command with a sentence for the person, the details under it, and an exit code."""

    def __init__(self, message: str, exit_code: ExitCode, details: tuple[Detail, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.details = details


class RefusedError(CommandError):
    """What was asked for cannot be done as it was asked."""

    def __init__(self, message: str, details: tuple[Detail, ...] = ()) -> None:
        super().__init__(message, ExitCode.REFUSED, details)


class NotFoundError(RefusedError):
    """There is no such run, machine or policy."""


class UnreachableError(CommandError):
    """The service cannot be reached or cannot answer now; the same command may work later."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNREACHABLE)
