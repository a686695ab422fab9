"""Where set-up looks for Python, with made-up machines: folders of small programs that stand for interpreters."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local import ROOT


class Machine:
    """A home folder and a PATH that hold what a test puts there, and the tools that the script needs."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home of a person"
        self.path = folder / "bin"
        self.path.mkdir(parents=True)
        self.home.mkdir()
        self.checkout = folder / "a checkout"
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts")
        for tool in ("bash", "dirname", "env"):
            (self.path / tool).symlink_to(str(shutil.which(tool)))

    def program(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def python(self, path: Path) -> Path:
        """An interpreter that runs: this one, by another name."""
        return self.program(path, f'exec "{sys.executable}" "$@"')

    def find(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "scripts" / "find-python"],
            env={"HOME": str(self.home), "PATH": str(self.path)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def base_interpreter() -> str:
    """What every stand-in of ``Machine.python`` really is."""
    code = "import sys; print(sys._base_executable)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_without_python_one_sentence_names_what_to_install(machine: Machine):
    found = machine.find()
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert "needs Python 3.13 or newer: install it" in found.stderr


@pytest.mark.parametrize("name", ["python3.13", "python3.14", "python3", "python"])
def test_on_path(machine: Machine, name: str):
    machine.python(machine.path / name)
    assert machine.find().stdout.strip() == base_interpreter()


def test_a_shim_that_fails_and_a_python_that_is_too_old_do_not_count(machine: Machine):
    machine.program(machine.path / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    machine.program(machine.path / "python3", "exit 1")
    assert machine.find().returncode == 1
    machine.python(machine.home / ".pyenv" / "versions" / "3.13.5" / "bin" / "python")
    found = machine.find()
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.strip() == base_interpreter()


def test_uv_installs_one_inside_the_checkout(machine: Machine):
    machine.program(
        machine.path / "uv",
        'place="$UV_PYTHON_INSTALL_DIR/made/python"\n'
        'case "$2" in\n'
        f'  install) "{shutil.which("mkdir")}" -p "${{place%/*}}" && '
        f'"{shutil.which("ln")}" -s "{sys.executable}" "$place" ;;\n'
        '  find) [ -e "$place" ] && echo "$place" ;;\n'
        "esac",
    )
    found = machine.find()
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == str(machine.checkout / ".local" / "python" / "made" / "python")


def test_a_uv_that_cannot_install_leads_to_the_same_sentence(machine: Machine):
    machine.program(machine.path / "uv", "exit 2")
    found = machine.find()
    assert found.returncode == 1
    assert "install it" in found.stderr
