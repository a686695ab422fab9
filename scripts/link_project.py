"""Puts the ``patchwave`` command into the virtual environment that runs this script.

The project is an application that is deployed as a folder, not a distribution, so nothing is built: a ``.pth`` file
makes the checkout importable and a small script stands for the entry point of ``[project.scripts]``.
"""

import shlex
import stat
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """\
#!/bin/sh
exec {python} -c 'import sys; from {module} import {function}; sys.argv[0] = "{name}"; sys.exit({function}())' "$@"
"""


def main() -> None:
    site_packages = Path(sysconfig.get_path("purelib"))
    (site_packages / "patchwave.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        # `python -c` would put the current folder first on the path and so run another checkout's code: -P forbids it.
        text = SCRIPT.format(python=shlex.quote(sys.executable) + " -P", name=name, module=module, function=function)
        script = Path(sys.executable).parent / name
        script.write_text(text, encoding="utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


if __name__ == "__main__":
    main()
