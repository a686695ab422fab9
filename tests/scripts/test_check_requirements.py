"""The drift check of the lock files, over a small world of packages and over the files of this checkout."""

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName

from local import ROOT
from scripts.check_requirements import Installed, check, main, read_lock

HASH = " \\\n    --hash=sha256:" + "0" * 64

WORLD = {
    "app-sdk": Installed("2.0.0rc3", ("transport>=1.5", "Crypto-Kit[fast]; extra == 'signing'")),
    "transport": Installed("1.7", ("winsock; sys_platform == 'win32'", "ancient; python_version < '3.0'")),
    "crypto-kit": Installed("5.1", ("speedups==3; extra == 'fast'", "slowdowns; extra == 'slow'")),
    "speedups": Installed("3.0"),
    "stray": Installed("1.0"),
}


def lookup(name: NormalizedName) -> Installed | None:
    return WORLD.get(name)


def complaints(lock: str, *roots: str) -> list[str]:
    return check("lock", lock, [Requirement(root) for root in roots], lookup)


def lock_of(*pins: str) -> str:
    return "# header\n" + "".join(f"{pin}{HASH}\n    # via something\n" for pin in pins)


EXACT = ("app-sdk==2.0.0rc3", "transport==1.7")


def test_an_exact_lock_has_no_complaint():
    assert complaints(lock_of(*EXACT), "app-sdk==2.0.0rc3") == []


def test_names_are_compared_as_the_index_compares_them():
    assert complaints(lock_of("App_SDK==2.0.0rc3", "Transport==1.7"), "app.sdk") == []


def test_what_a_dependency_needs_must_be_pinned_too():
    assert complaints(lock_of("app-sdk==2.0.0rc3"), "app-sdk") == ["lock: transport: needed, not pinned"]


def test_what_nothing_needs_must_not_be_pinned():
    assert complaints(lock_of(*EXACT, "stray==1.0"), "app-sdk") == ["lock: stray: pinned, not needed"]


def test_extras_bring_their_own_needs_and_no_others():
    lock = lock_of(*EXACT, "crypto-kit==5.1", "speedups==3.0")
    assert complaints(lock, "app-sdk[signing]") == []


def test_a_pin_differs_from_what_is_installed():
    assert complaints(lock_of("app-sdk==2.0.0rc3", "transport==1.6"), "app-sdk") == [
        "lock: transport: pinned to 1.6, installed is 1.7"
    ]


def test_a_raised_bound_in_pyproject_is_seen():
    assert complaints(lock_of(*EXACT), "app-sdk", "transport>=2") == [
        "lock: transport: pyproject.toml asks for >=2, installed is 1.7"
    ]


def test_a_new_dependency_is_seen_before_it_is_installed():
    assert complaints(lock_of(*EXACT), "app-sdk", "brand-new") == [
        "lock: brand-new: asked for by pyproject.toml, not installed"
    ]


def test_pins_for_other_platforms_are_passed_over():
    lock = lock_of(*EXACT) + f"winsock==9 ; sys_platform == 'win32'{HASH}\n"
    assert complaints(lock, "app-sdk") == []


def test_a_pin_without_a_hash_is_refused():
    assert complaints(lock_of("app-sdk==2.0.0rc3") + "transport==1.7\n", "app-sdk") == [
        "lock: transport: pinned without a hash"
    ]


@pytest.mark.parametrize("loose", ["transport>=1.7", "transport", "transport==1.7,!=1.8"])
def test_only_exact_pins_count(loose: str):
    assert "lock: transport: not pinned to one version" in complaints(lock_of("app-sdk==2.0.0rc3", loose), "app-sdk")


def test_a_comment_and_a_marker_are_not_part_of_the_pin():
    lock = read_lock(f"transport==1.7 ; sys_platform != 'none'{HASH}\n    # via app-sdk\n")
    assert lock.pins == {"transport": "1.7"}
    assert lock.without_hash == []


class TestThisCheckout:
    root = ROOT

    def test_is_exact(self, capsys: pytest.CaptureFixture[str]):
        assert main(self.root) == 0, capsys.readouterr().err

    @pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
    def test_one_pin_less_is_drift(self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        for copied in ("pyproject.toml", "requirements.txt", "requirements-dev.txt"):
            (tmp_path / copied).write_text((self.root / copied).read_text("utf-8"), "utf-8")
        lines = (tmp_path / name).read_text("utf-8").splitlines(keepends=True)
        start = next(index for index, line in enumerate(lines) if line.startswith("msal=="))
        end = next(index for index in range(start + 1, len(lines)) if lines[index][0].isalpha())
        (tmp_path / name).write_text("".join(lines[:start] + lines[end:]), "utf-8")
        assert main(tmp_path) == 1
        assert f"{name}: msal: needed, not pinned" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-node.txt"])
    def test_no_python_lock_has_an_option_or_an_address(self, name: str):
        lines = (self.root / name).read_text("utf-8").splitlines()
        assert [line for line in lines if line.startswith("-") or "://" in line or " @ " in line] == []

    def test_the_node_lock_names_no_registry(self):
        packages = json.loads((self.root / "package-lock.json").read_text("utf-8"))["packages"]
        assert len(packages) > 100
        assert [name for name, package in packages.items() if package.keys() & {"resolved", "link"}] == []
        assert [name for name, package in packages.items() if name and "integrity" not in package] == []
