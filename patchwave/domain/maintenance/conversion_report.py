"""What became of each field when a schedule moves: carried to a place, left behind without loss, or lost."""

from collections.abc import Sequence

from patchwave.domain.core.documents import Document
from patchwave.domain.core.validation import Problem


class ConvertedField(Document):
    """One field of what is left: ``becomes`` is its path on the other side, empty when it stays behind."""

    path: str
    becomes: str = ""
    message: str = ""


class NotConvertible(Exception):
    """The other side has no words for it. ``problems`` name the fields of the side that is being left."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in problems))


class ConversionReport:
    """Collects what became of the fields, in the order in which they were looked at."""

    def __init__(self) -> None:
        self.fields: list[ConvertedField] = []
        self.problems: list[Problem] = []
        """What is lost, so that the other side would not mean the same."""

    def carried(self, path: str, becomes: str, message: str = "") -> None:
        """The field means the same in another place."""
        self.fields.append(ConvertedField(path=path, becomes=becomes, message=message))

    def left(self, path: str, message: str) -> None:
        """The field stays behind, and that changes neither times, nor machines, nor patches."""
        self.fields.append(ConvertedField(path=path, message=message))

    def lost(self, path: str, message: str) -> None:
        """The field cannot be carried, and the other side means something else without it."""
        self.problems.append(Problem(path=path, message=message))
