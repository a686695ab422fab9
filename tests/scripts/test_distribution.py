"""What an operator installs: the wheel holds the library, and its command needs no package of the app."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

from local import ROOT
from patchwave.cli import app
from scripts.check_requirements import closure, installed

INFO = "patchwave-0.1.0.dist-info"

ONLY = """\
import sys
from importlib import metadata

allowed = set(sys.argv.pop(1).split(","))
owners = metadata.packages_distributions()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("activities", "function_app", "local", "orchestrators", "triggers") or (
            top in owners and not allowed.intersection(each.lower().replace("_", "-") for each in owners[top])
        ):
            raise ModuleNotFoundError(f"{name} is not installed with the command", name=name)

sys.meta_path.insert(0, Refuse())
from patchwave.cli.app import run
sys.exit(run(sys.argv[1:]))
"""
"""Runs the command with the distributions of a list alone, and without the folders of a checkout."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout. The build backend is part of uv, so nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = [sys.executable, "-m", "uv", "build", "--wheel", "--offline", "--quiet", "--out-dir", str(folder)]
    subprocess.run([*uv, str(ROOT)], check=True, capture_output=True, text=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def requirements(wheel: zipfile.ZipFile, extra: str = "") -> list[Requirement]:
    metadata = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    every = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [each for each in every if (str(each.marker) == f'extra == "{extra}"' if extra else each.marker is None)]


def test_the_wheel_holds_the_library_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if not name.startswith(f"{INFO}/") and not name.endswith("/")}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "patchwave"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert held == {name for name in listed.stdout.split() if (ROOT / name).exists()}


def test_the_wheel_has_the_command_and_its_license(wheel: zipfile.ZipFile) -> None:
    assert "patchwave = patchwave.cli.app:main" in wheel.read(f"{INFO}/entry_points.txt").decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_command_requires_no_package_of_the_app(wheel: zipfile.ZipFile) -> None:
    base = {each.name for each in requirements(wheel)}
    assert {"httpx", "pydantic", "typer"} <= base
    assert not {name for name in base if name.startswith(("azure", "durable", "grpc", "aiohttp"))}
    assert {"azure-functions-durable", "aiohttp"} <= {each.name for each in requirements(wheel, "app")}
    assert {"pytest", "ruff"} <= {each.name for each in requirements(wheel, "dev")}


@pytest.mark.parametrize(
    "words",
    [
        "plan --fleet examples/fleets/rollout.json --policy examples/policies/rollout.yaml --svg /dev/null",
        "plan --fleet examples/fleets/rollout.json --policy examples/policies/rollout.yaml -o json",
        "policy validate -f examples/policies/rollout.yaml",
        "run list --help",
        "--help",
    ],
)
def test_the_command_works_with_its_own_packages_alone(words: str, wheel: zipfile.ZipFile) -> None:
    names, complaints = closure(requirements(wheel), installed)
    assert complaints == []
    command = [sys.executable, "-c", ONLY, ",".join([*names, "patchwave"]), *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout != "") == (0, True), done.stderr


def test_the_entry_point_exists() -> None:
    assert callable(app.main)
