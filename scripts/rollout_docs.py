"""Keeps the example of ``docs/explanation/rollout-planning.md`` true: its output is what the command prints now.

A block is a fence under a comment that holds its command, ``<!-- $ patchwave plan … -->``. With ``| first of each
list`` behind it, of each list of a JSON document only the first entry is shown. The drawing
beside it comes from the same command. With ``--check`` the script only says whether page and drawing are up to date.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/explanation/rollout-planning.md"
DRAWING = ROOT / "docs/explanation/rollout-planning.svg"
EXAMPLE = "patchwave plan --fleet examples/fleets/rollout.json --policy examples/policies/rollout.yaml"

_BLOCK = re.compile(
    r"(?P<head><!-- \$ (?P<command>patchwave .+?)(?P<first> \| first of each list)? -->\n```\w+\n).*?(?P<end>^```\n)",
    re.DOTALL | re.MULTILINE,
)
_WIDTH = "112"
_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""What makes the command write for a terminal although it has none."""


def run(command: str) -> str:
    """What the command of this checkout prints, without colours and in a fixed width.

    Raises:
        RuntimeError: it fails; with what it wrote on standard error.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _TERMINAL}
    environment |= {"COLUMNS": _WIDTH, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    arguments = [sys.executable, "-m", "patchwave.cli.app", *shlex.split(command)[1:]]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.decode('utf-8', 'replace')}")
    return "\n".join(line.rstrip() for line in done.stdout.decode("utf-8").splitlines())


def render(page: str) -> str:
    """The page with every block as its command prints it."""

    def block(found: re.Match[str]) -> str:
        output = run(found["command"])
        if found["first"]:
            output = json.dumps(_first_of_each_list(json.loads(output)), indent=2, ensure_ascii=False)
        return f"{found['head']}{output}\n{found['end']}"

    return _BLOCK.sub(block, page)


def draw() -> str:
    """The example as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.svg"
        run(f"{EXAMPLE} --svg {shlex.quote(str(file))}")
        return file.read_text(encoding="utf-8")


def _first_of_each_list(document: dict[str, Any]) -> dict[str, Any]:
    return {key: cast("list[Any]", value)[:1] if isinstance(value, list) else value for key, value in document.items()}


def main(arguments: list[str]) -> int:
    """Writes page and drawing, or with ``--check`` compares them; 1 when one is not what would be written."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = {PAGE: render(page), DRAWING: draw()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" not in arguments:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what the command prints: run `make docs`.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
