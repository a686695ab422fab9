"""Fails when a lock file is not exactly what ``pyproject.toml`` asks for.

``requirements.txt`` must pin what the extra ``app`` asks for and what that needs in turn, and nothing else;
``requirements-dev.txt`` the same with the command's dependencies and the extra ``dev`` on top. What a package needs is
read from the packages installed in the environment that runs this script, so the check needs no network and gives the
same answer tomorrow. A pin whose marker is for another platform or Python cannot be judged here and is passed over.
"""

import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Installed:
    """What the check needs of one installed distribution."""

    version: str
    requires: tuple[str, ...] = ()


@dataclass
class Lock:
    """The pins of a lock file: name to version, and the names that carry no hash."""

    pins: dict[NormalizedName, str] = field(default_factory=dict[NormalizedName, str])
    without_hash: list[NormalizedName] = field(default_factory=list[NormalizedName])
    complaints: list[str] = field(default_factory=list[str])


Lookup = Callable[[NormalizedName], Installed | None]


def installed(name: NormalizedName) -> Installed | None:
    """The distribution of this environment, or None."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return Installed(found.version, tuple(found.requires or ()))


def read_lock(text: str) -> Lock:
    """The pins of a requirements file that apply to this platform."""
    lock = Lock()
    for line in _logical_lines(text):
        words, *hashes = line.split("--hash=")
        requirement = Requirement(words.strip())
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        name = canonicalize_name(requirement.name)
        exact = [spec.version for spec in requirement.specifier if spec.operator == "=="]
        if len(exact) != 1 or len(requirement.specifier) != 1:
            lock.complaints.append(f"{name}: not pinned to one version")
            continue
        lock.pins[name] = exact[0]
        if not hashes:
            lock.without_hash.append(name)
    return lock


def _logical_lines(text: str) -> Iterator[str]:
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        content = line.split("#", 1)[0].strip()
        if content:
            yield content


def closure(roots: Iterable[Requirement], lookup: Lookup) -> tuple[set[NormalizedName], list[str]]:
    """Everything that the roots need here, themselves included, and what is wrong with what is installed."""
    complaints: list[str] = []
    seen: set[tuple[NormalizedName, str]] = set()
    waiting = [(root, "pyproject.toml") for root in roots]
    while waiting:
        requirement, asked_by = waiting.pop()
        name = canonicalize_name(requirement.name)
        found = lookup(name)
        if found is None:
            complaints.append(f"{name}: asked for by {asked_by}, not installed")
            continue
        if not requirement.specifier.contains(found.version, prereleases=True):
            complaints.append(f"{name}: {asked_by} asks for {requirement.specifier}, installed is {found.version}")
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in found.requires:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append((needed, name))
    return {name for name, _ in seen}, complaints


def check(lock_name: str, lock_text: str, roots: Iterable[Requirement], lookup: Lookup = installed) -> list[str]:
    """The complaints about one lock file, in the order of the names; empty when it is exact."""
    lock = read_lock(lock_text)
    needed, complaints = closure(roots, lookup)
    complaints += lock.complaints
    complaints += [f"{name}: pinned without a hash" for name in lock.without_hash]
    complaints += [f"{name}: needed, not pinned" for name in needed - lock.pins.keys()]
    complaints += [f"{name}: pinned, not needed" for name in lock.pins.keys() - needed]
    for name in needed & lock.pins.keys():
        found = lookup(name)
        if found is not None and Version(found.version) != Version(lock.pins[name]):
            complaints.append(f"{name}: pinned to {lock.pins[name]}, installed is {found.version}")
    return [f"{lock_name}: {complaint}" for complaint in sorted(set(complaints))]


def roots_of(pyproject: dict[str, Any], *, development: bool) -> list[Requirement]:
    """The direct dependencies of the deployed app, or of everything that ``make`` runs, which apply here.

    A package of the extra ``app`` that the command needs too has the bounds of the command's list.
    """
    project = pyproject["project"]
    command = {canonicalize_name(each.name): each for each in map(Requirement, project["dependencies"])}
    extras = {name: [Requirement(text) for text in texts] for name, texts in project["optional-dependencies"].items()}
    requirements = [command.get(canonicalize_name(each.name), each) for each in extras["app"]]
    if development:
        requirements += [*command.values(), *extras["dev"]]
    return [each for each in requirements if each.marker is None or each.marker.evaluate()]


def main(root: Path = ROOT) -> int:
    """Prints the complaints; the exit code is 1 when there are any."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    complaints: list[str] = []
    for name, development in (("requirements.txt", False), ("requirements-dev.txt", True)):
        text = (root / name).read_text(encoding="utf-8")
        complaints += check(name, text, roots_of(pyproject, development=development))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if complaints:
        print("Run `make lock`, then `make setup`.", file=sys.stderr)
        return 1
    print("The lock files hold exactly what pyproject.toml asks for.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
