"""What ``.funcignore`` lets into the package that is deployed."""

import subprocess

from local import ROOT

PACKAGES = {"activities", "orchestrators", "patchwave", "triggers"}
FILES = {"function_app.py", "host.json", "requirements.txt"}


def tracked(*options: str) -> set[str]:
    command = ["git", "ls-files", "--cached", "-z", *options]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name}


def test_the_package_is_the_app_and_nothing_else():
    # Its patterns are those of .gitignore, so git can tell what they match.
    deployed = tracked() - tracked("--ignored", "--exclude-from=.funcignore")
    packaged = {name for name in deployed if "/" in name}
    assert deployed - packaged == FILES
    assert {name.split("/")[0] for name in packaged} == PACKAGES
    # Besides code, the templates of mails.
    assert {name for name in packaged if not name.endswith((".py", ".j2"))} == set()


def test_no_module_of_the_app_is_left_out():
    deployed = tracked() - tracked("--ignored", "--exclude-from=.funcignore")
    modules = {name for name in tracked() if name.split("/")[0] in PACKAGES and name.endswith(".py")}
    command = {name for name in modules if name.startswith("patchwave/cli/")}
    assert command
    assert modules - command <= deployed
    assert not command & deployed
