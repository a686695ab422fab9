"""Fails when a locked package has a known vulnerability that is not excused.

What is known comes from the registries that the packages come from, asked as pip and npm are configured, and from a
folder of advisories in the form of OSV where ``PATCHWAVE_ADVISORIES`` names one. A source that cannot answer is named
loudly: packages that were not judged are not safe, they are not audited. ``--required`` fails then, too. A folder
that is named and holds no advisory always fails.

An excuse in ``scripts/excused.toml`` has a reason and a day on which it ends.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-node.txt")
MAX_EXCUSE = timedelta(days=180)
CANARY = ("jinja2", "2.10")
"""A version with vulnerabilities that have been known for years: a registry that knows of none there knows of none."""
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
_ASKED_AT_ONCE = 8
_SECONDS = 20


@dataclass(frozen=True, order=True)
class Package:
    """A locked package; ``ecosystem`` is PyPI or npm, as advisories call it."""

    ecosystem: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.ecosystem})"


@dataclass(frozen=True, order=True)
class Finding:
    """A known vulnerability of a locked package, by all of its names."""

    package: Package
    ids: tuple[str, ...]
    summary: str = ""


@dataclass(frozen=True)
class ExcludedPatch:
    """Why a vulnerability of a package does not matter here, and until when."""

    id: str
    package: str
    until: date
    reason: str


class NotAudited(Exception):
    """A source cannot answer; the text says why."""


class NoAdvisories(NotAudited):
    """The folder that was named holds none: a mistake, whichever other source answers."""


# --- what is locked


def locked(root: Path) -> list[Package]:
    """Every package that a lock file of the checkout pins."""
    found = {package for name in LOCKS for package in python_pins((root / name).read_text("utf-8"))}
    document = json.loads((root / "package-lock.json").read_text("utf-8"))
    return sorted(found | set(node_pins(document)))


def python_pins(text: str) -> Iterator[Package]:
    """The pins of a requirements file, for whatever platform they are."""
    for line in text.splitlines():
        if pin := _PIN.match(line):
            yield Package("PyPI", canonicalize_name(pin["name"]), pin["version"])


def node_pins(document: Mapping[str, Any]) -> Iterator[Package]:
    """The packages of a ``package-lock.json``."""
    for path, entry in document["packages"].items():
        if path and "version" in entry:
            yield Package("npm", path.rpartition("node_modules/")[2], entry["version"])


# --- what is known


def ask_python_registry(packages: Iterable[Package], index: str) -> list[Finding]:
    """What the package index says of each version.

    Raises:
        NotAudited: it does not answer, or does not know of vulnerabilities.
    """

    def ask(package: Package) -> list[Finding]:
        url = f"{index}pypi/{package.name}/{package.version}/json"
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                document = json.load(answer)
        except (OSError, ValueError) as error:
            raise NotAudited(f"it does not tell of {package}: {error}") from error
        return [
            Finding(package, (each["id"], *each.get("aliases", ())), str(each.get("summary") or "")[:200])
            for each in document.get("vulnerabilities") or ()
            if not each.get("withdrawn")
        ]

    try:
        told = ask(Package("PyPI", *CANARY))
    except NotAudited as error:
        what = f"{CANARY[0]} {CANARY[1]}, a version known to be vulnerable that is asked about as a check"
        raise NotAudited(f"it did not answer for {what}: {error.__cause__}") from error
    if not told:
        raise NotAudited(f"it knows of no vulnerability of {CANARY[0]} {CANARY[1]}, so it knows of none at all")
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return [finding for found in pool.map(ask, packages) for finding in found]


def ask_node_registry(root: Path, npm: str) -> list[Finding]:
    """What ``npm audit`` says of ``package-lock.json``.

    Raises:
        NotAudited: it does not answer.
    """
    try:
        done = subprocess.run(
            [npm, "audit", "--package-lock-only", "--json"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=_SECONDS * 6,
            check=False,
        )
        document = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise NotAudited(f"npm audit did not run: {error}") from error
    if "vulnerabilities" not in document:
        raise NotAudited(str(document.get("message") or document.get("error") or "npm audit gave no answer")[:200])
    pins = {(package.name, package.version) for package in locked(root) if package.ecosystem == "npm"}
    return sorted(_node_findings(document, pins))


def _node_findings(document: Mapping[str, Any], pins: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    versions: dict[str, list[str]] = {}
    for name, version in pins:
        versions.setdefault(name, []).append(version)
    for name, entry in document["vulnerabilities"].items():
        for via in entry["via"]:
            # A text names the dependency that brings it, which has an entry of its own.
            if isinstance(via, dict):
                advisory = cast("dict[str, Any]", via)
                identity = str(advisory["url"]).rpartition("/")[2]
                for version in versions.get(name, ["?"]):
                    yield Finding(Package("npm", name, version), (identity,), str(advisory.get("title", ""))[:200])


def read_advisories(folder: Path, packages: Iterable[Package]) -> list[Finding]:
    """What a folder of OSV advisories says, in YAML or JSON.

    Raises:
        NoAdvisories: there is none.
    """
    by_name: dict[tuple[str, str], list[Package]] = {}
    for package in packages:
        by_name.setdefault((package.ecosystem, package.name), []).append(package)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".yaml", ".json")]
    known = 0
    found: list[Finding] = []
    for path in files:
        text = path.read_text("utf-8")
        read: object = json.loads(text) if path.suffix == ".json" else yaml.load(text, yaml.CSafeLoader)
        document = cast("dict[str, Any]", read) if isinstance(read, dict) else {}
        if "affected" not in document:
            continue
        known += 1
        if document.get("withdrawn"):
            continue
        ids = (document["id"], *document.get("aliases", ()))
        summary = str(document.get("summary") or document.get("details") or "").strip()[:200]
        for affected in document["affected"]:
            named = affected.get("package", {})
            ecosystem, name = named.get("ecosystem", ""), named.get("name", "")
            key = ecosystem, canonicalize_name(name) if ecosystem == "PyPI" else name
            found += [Finding(each, ids, summary) for each in by_name.get(key, ()) if is_affected(each, affected)]
    if not known:
        raise NoAdvisories("it holds no advisory" if folder.is_dir() else "there is no such folder")
    return sorted(set(found))


def is_affected(package: Package, affected: Mapping[str, Any]) -> bool:
    """Whether an entry of an advisory holds the version: by name, or between two events of a range."""
    if package.version in map(str, affected.get("versions") or ()):
        return True
    return any(
        _is_between(package.version, each.get("events") or ())
        for each in affected.get("ranges") or ()
        if each.get("type") in ("ECOSYSTEM", "SEMVER")
    )


def _is_between(version: str, events: Iterable[Mapping[str, Any]]) -> bool:
    try:
        ours, inside = Version(version), False
        for event in events:
            # In order, as the form of OSV wants them.
            if "introduced" in event:
                inside = inside or ours >= Version(str(event["introduced"]))
            elif "fixed" in event:
                inside = inside and ours < Version(str(event["fixed"]))
            elif "last_affected" in event:
                inside = inside and ours <= Version(str(event["last_affected"]))
    except InvalidVersion:
        # What cannot be compared is for a person to judge.
        return True
    return inside


# --- what is excused


def read_excuses(text: str, today: date) -> tuple[list[ExcludedPatch], list[str]]:
    """The excuses of the file that hold, and what is wrong with others."""
    excuses: list[ExcludedPatch] = []
    complaints: list[str] = []
    for number, entry in enumerate(tomllib.loads(text).get("excused", []), start=1):
        try:
            excuse = ExcludedPatch(**entry)
        except TypeError:
            complaints.append(f"excuse {number} must have id, package, until and reason, and nothing else")
            continue
        if type(excuse.until) is not date or not str(excuse.reason).strip():
            complaints.append(f"the excuse of {excuse.id} needs a reason, and a day such as 2027-01-31")
        elif excuse.until > today + MAX_EXCUSE:
            complaints.append(f"the excuse of {excuse.id} is for more than {MAX_EXCUSE.days} days")
        elif excuse.until < today:
            complaints.append(f"the excuse of {excuse.id} ended on {excuse.until}: {excuse.reason}")
        else:
            excuses.append(excuse)
    return excuses, complaints


def is_excused(finding: Finding, excuses: Iterable[ExcludedPatch]) -> bool:
    """Whether an excuse that holds is for this vulnerability of this package."""
    return any(excuse.id in finding.ids and excuse.package == finding.package.name for excuse in excuses)


# --- the command


def package_index() -> str:
    """The address of the index that pip asks, by its files, its environment or its default; with a slash at its end."""
    from pip._internal.commands import create_command

    asked: str = create_command("download").parser.get_default_values().index_url
    return asked.strip().rstrip("/").removesuffix("/simple") + "/"


def main(arguments: list[str] | None = None, *, root: Path = ROOT, today: date | None = None) -> int:
    """Audit the lock files; 1 when something is found that is not excused, or a source that must answer does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail also when a source does not answer")
    given = parser.parse_args(arguments)
    packages = locked(root)
    python = [package for package in packages if package.ecosystem == "PyPI"]
    sources: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("the package index", lambda: ask_python_registry(python, package_index())),
        ("the npm registry", lambda: ask_node_registry(root, _npm(root))),
    ]
    if folder := os.environ.get("PATCHWAVE_ADVISORIES"):
        sources.append((f"the advisories in {folder}", lambda: read_advisories(Path(folder), packages)))
    text = (root / "scripts" / "excused.toml").read_text("utf-8")
    excuses, complaints = read_excuses(text, today or datetime.now(UTC).date())
    findings: set[Finding] = set()
    silent, is_misnamed = 0, False
    for name, ask in sources:
        try:
            found = ask()
        except NotAudited as error:
            silent += 1
            is_misnamed = is_misnamed or isinstance(error, NoAdvisories)
            print(f"audit: NOT AUDITED by {name}: {error}")
            continue
        findings |= set(found)
        print(f"audit: {name} answered: {len(found)} vulnerabilities are known")
    bad = [finding for finding in sorted(findings) if not is_excused(finding, excuses)]
    for finding in bad:
        print(f"audit: {finding.package}: {', '.join(finding.ids)} {finding.summary}")
    for complaint in complaints:
        print(f"audit: {complaint}")
    if silent == len(sources):
        print(f"audit: NOTHING WAS AUDITED. No source tells of vulnerabilities: {len(packages)} packages are unjudged.")
    if silent:
        print(
            "audit: PATCHWAVE_ADVISORIES may name a folder of advisories, which needs no network;"
            " ARGS=--required makes a source without an answer a failure."
        )
    return 1 if bad or complaints or is_misnamed or (silent and given.required) else 0


def _npm(root: Path) -> str:
    own = root / ".venv" / "bin" / "npm"
    return str(own) if own.exists() else "npm"


if __name__ == "__main__":
    sys.exit(main())
