"""The audit of the lock files: a finding fails it, an excuse holds until its day, and silence is never a pass."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.audit import (
    ROOT,
    Finding,
    NotAudited,
    Package,
    ask_node_registry,
    ask_python_registry,
    is_affected,
    locked,
    main,
    read_advisories,
    read_excuses,
)

TODAY = date(2026, 11, 30)
LOCK = "# header\njinja2==3.1.4 \\\n    --hash=sha256:00\nAzure.Core[aio]==1.2.0 ; sys_platform == 'win32' \\\n"
HOLE = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "summary": "A hole.", "withdrawn": None}
OLD = {"id": "PYSEC-2019-217", "aliases": [], "summary": "An old hole.", "withdrawn": None}
JINJA = Package("PyPI", "jinja2", "3.1.4")


class Index:
    """A package index on loopback that tells of vulnerabilities."""

    def __init__(self) -> None:
        self.known: dict[str, list[dict[str, Any]]] = {"jinja2/2.10": [OLD], "jinja2/3.1.4": [], "azure-core/1.2.0": []}
        known = self.known

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, name, version, _ = self.path.split("/")
                found = known.get(f"{name}/{version}")
                self.send_response(404 if found is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps({"vulnerabilities": found}).encode())

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The index that pip is configured with."""
    served = Index()
    thread = threading.Thread(target=served.server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"{served.url}simple/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PATCHWAVE_ADVISORIES", raising=False)
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with two Python packages and one of npm, whose audit finds nothing."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "excused.toml").write_text("")
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-node.txt"):
        (tmp_path / name).write_text(LOCK)
    packages = {"": {"version": "0"}, "node_modules/a/node_modules/@scope/b": {"version": "1.0.0"}}
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": packages}))
    npm_says(tmp_path, {"vulnerabilities": {}})
    return tmp_path


def npm_says(checkout: Path, document: object) -> None:
    """The npm of the checkout answers with the document."""
    npm = checkout / ".venv" / "bin" / "npm"
    npm.parent.mkdir(parents=True, exist_ok=True)
    npm.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(document)}\nEND\nexit 1\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)


def excuse(checkout: Path, **changes: object) -> None:
    entry: dict[str, object] = {"id": "CVE-2026-1", "package": "jinja2", "until": "2026-12-31", "reason": "Unused."}
    lines = [f"{key} = {value if key == 'until' else json.dumps(value)}" for key, value in (entry | changes).items()]
    (checkout / "scripts" / "excused.toml").write_text("[[excused]]\n" + "\n".join(lines))


def test_every_pin_of_every_lock_is_audited(checkout: Path) -> None:
    assert locked(checkout) == [
        Package("PyPI", "azure-core", "1.2.0"),
        JINJA,
        Package("npm", "@scope/b", "1.0.0"),
    ]
    assert len(locked(ROOT)) > 300


def test_nothing_known_passes(index: Index, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--required"], root=checkout, today=TODAY) == 0
    assert "NOT AUDITED" not in capsys.readouterr().out


def test_a_finding_fails(index: Index, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index.known["jinja2/3.1.4"] = [HOLE]
    assert main([], root=checkout, today=TODAY) == 1
    assert "jinja2 3.1.4 (PyPI): PYSEC-2026-1, CVE-2026-1 A hole." in capsys.readouterr().out


def test_what_was_withdrawn_is_no_finding(index: Index, checkout: Path) -> None:
    index.known["jinja2/3.1.4"] = [HOLE | {"withdrawn": "2026-11-01T00:00:00Z"}]
    assert main([], root=checkout, today=TODAY) == 0


def test_a_finding_of_npm_fails(index: Index, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    via = [{"url": "https://example.org/advisories/GHSA-1", "title": "A hole."}, "another"]
    npm_says(checkout, {"vulnerabilities": {"@scope/b": {"via": via}, "a": {"via": ["@scope/b"]}}})
    assert main([], root=checkout, today=TODAY) == 1
    assert "@scope/b 1.0.0 (npm): GHSA-1 A hole." in capsys.readouterr().out


def test_an_excuse_holds_for_its_vulnerability_until_its_day(index: Index, checkout: Path) -> None:
    index.known["jinja2/3.1.4"] = [HOLE]
    excuse(checkout)
    assert main([], root=checkout, today=TODAY) == 0
    assert main([], root=checkout, today=date(2026, 12, 31)) == 0
    assert main([], root=checkout, today=date(2027, 1, 1)) == 1
    excuse(checkout, package="azure-core")
    assert main([], root=checkout, today=TODAY) == 1
    excuse(checkout, id="CVE-2026-2")
    assert main([], root=checkout, today=TODAY) == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"until": "2026-11-29"}, "the excuse of CVE-2026-1 ended on 2026-11-29: Unused."),
        ({"until": "2027-06-30"}, "the excuse of CVE-2026-1 is for more than 180 days"),
        ({"until": '"soon"'}, "needs a reason, and a day"),
        ({"until": "2026-12-31T00:00:00Z"}, "needs a reason, and a day"),
        ({"reason": " "}, "needs a reason, and a day"),
        ({"why": "?"}, "excuse 1 must have id, package, until and reason, and nothing else"),
    ],
)
def test_an_excuse_without_end_or_reason_is_none(checkout: Path, changes: dict[str, object], complaint: str) -> None:
    excuse(checkout, **changes)
    excuses, [told] = read_excuses((checkout / "scripts" / "excused.toml").read_text(), TODAY)
    assert excuses == []
    assert complaint in told


def test_a_silent_index_is_reported_and_fails_where_an_answer_is_required(
    index: Index, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.known.clear()
    npm_says(checkout, {"message": "405 Method Not Allowed"})
    assert main([], root=checkout, today=TODAY) == 0
    told = capsys.readouterr().out
    asked = "jinja2 2.10, a version known to be vulnerable that is asked about as a check"
    assert f"NOT AUDITED by the package index: it did not answer for {asked}: HTTP Error 404: Not Found" in told
    assert "NOT AUDITED by the npm registry: 405 Method Not Allowed" in told
    assert "NOTHING WAS AUDITED. No source tells of vulnerabilities: 3 packages are unjudged." in told
    last = told.splitlines()[-1]
    assert "PATCHWAVE_ADVISORIES" in last
    assert "ARGS=--required" in last
    assert main(["--required"], root=checkout, today=TODAY) == 1


def test_an_index_without_any_vulnerability_is_no_evidence(index: Index) -> None:
    index.known["jinja2/2.10"] = []
    with pytest.raises(NotAudited, match="knows of none at all"):
        ask_python_registry([JINJA], index.url)


def test_an_index_without_an_answer_for_one_package_is_no_evidence(index: Index) -> None:
    with pytest.raises(NotAudited, match=r"it does not tell of other 1\.0"):
        ask_python_registry([Package("PyPI", "other", "1.0")], index.url)


def test_a_missing_npm_is_reported(checkout: Path) -> None:
    with pytest.raises(NotAudited, match="did not run"):
        ask_node_registry(checkout, str(checkout / "no-such-npm"))


RANGE = {
    "type": "ECOSYSTEM",
    "events": [{"introduced": "0"}, {"fixed": "2.11.3"}, {"introduced": "3.0"}, {"fixed": "3.1.5"}],
}


@pytest.mark.parametrize(
    ("version", "affected", "expected"),
    [
        ("3.1.4", {"ranges": [RANGE]}, True),
        ("3.1.5", {"ranges": [RANGE]}, False),
        ("2.11.2", {"ranges": [RANGE]}, True),
        ("2.12", {"ranges": [RANGE]}, False),
        ("3.1.4", {"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"last_affected": "3.1.4"}]}]}, True),
        ("3.1.5", {"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"last_affected": "3.1.4"}]}]}, False),
        ("3.1.4", {"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
        ("3.1.4", {"versions": ["3.1.4"]}, True),
        ("3.1.4", {"versions": ["3.1.40"], "ranges": []}, False),
        ("odd", {"ranges": [RANGE]}, True),
        ("3.1.4", {}, False),
    ],
)
def test_which_versions_an_advisory_is_about(version: str, affected: dict[str, Any], expected: bool) -> None:
    assert is_affected(Package("PyPI", "jinja2", version), affected) is expected


def test_a_folder_of_advisories_is_a_source(
    index: Index, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vulns"
    folder.mkdir()
    entry = {"package": {"ecosystem": "PyPI", "name": "Jinja2"}, "ranges": [RANGE]}
    advisory = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "details": "A hole.\n", "affected": [entry]}
    (folder / "one.yaml").write_text(yaml.dump(advisory))
    (folder / "gone.json").write_text(json.dumps(advisory | {"withdrawn": "2026-01-01T00:00:00Z"}))
    other = {"package": {"ecosystem": "npm", "name": "jinja2"}, "ranges": [RANGE]}
    (folder / "other.json").write_text(json.dumps(advisory | {"affected": [other]}))
    assert read_advisories(folder, [JINJA]) == [Finding(JINJA, ("PYSEC-2026-1", "CVE-2026-1"), "A hole.")]
    monkeypatch.setenv("PATCHWAVE_ADVISORIES", str(folder))
    assert main([], root=checkout, today=TODAY) == 1


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (None, "there is no such folder"),
        ({}, "it holds no advisory"),
        ({"README.md": "# Advisories", "package.json": "{}", "list.yaml": "- 1"}, "it holds no advisory"),
    ],
)
def test_a_folder_without_an_advisory_always_fails(
    index: Index,
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str] | None,
    why: str,
) -> None:
    folder = tmp_path / "vulns"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    monkeypatch.setenv("PATCHWAVE_ADVISORIES", str(folder))
    # Although both registries answer.
    assert main([], root=checkout, today=TODAY) == 1
    assert f"NOT AUDITED by the advisories in {folder}: {why}" in capsys.readouterr().out
