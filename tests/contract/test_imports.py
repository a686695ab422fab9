"""What may import what: the rules that the import linter cannot hold, and proof that the orchestrators' bans bite."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local import ROOT

PACKAGES = ["activities", "local", "orchestrators", "patchwave", "triggers"]
OURS = {*PACKAGES, "function_app"}


def imported_by(path: Path) -> set[str]:
    """The top-level names of the modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_settings_import_the_domain_alone():
    lines = (ROOT / "patchwave/settings.py").read_text("utf-8").splitlines()
    assert imported_by(ROOT / "patchwave/settings.py") & OURS == {"patchwave"}
    ours = [line for line in lines if line.startswith(("from patchwave", "import patchwave"))]
    assert [line for line in ours if not line.startswith("from patchwave.domain.")] == []


def test_the_composition_root_imports_nothing_that_is_not_deployed():
    assert imported_by(ROOT / "function_app.py") & {"local", "tests", "scripts"} == set()


def banned(source: str, folder: str) -> list[str]:
    """The bans that ``make lint`` reports for a source as if it lay in ``folder``."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "json"]
    done = subprocess.run(
        [*command, "--stdin-filename", f"{folder}/probe.py", "-"],
        input=source,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    return [finding["code"] for finding in json.loads(done.stdout) if finding["code"] == "TID251"]


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(1)\n",
        "import uuid\nuuid.uuid4()\n",
        "from uuid import uuid4\nuuid4()\n",
        "import random\nrandom.random()\n",
        "import os\nos.environ['X']\n",
        "from os import getenv\ngetenv('X')\n",
        "import datetime\ndatetime.datetime.now()\n",
        "from datetime import datetime\ndatetime.now()\n",
        "from datetime import datetime, UTC\ndatetime.now(UTC)\n",
        "from datetime import datetime\ndatetime.utcnow()\n",
        "from datetime import date\ndate.today()\n",
        "import requests\nrequests.get('x')\n",
        "import aiohttp\naiohttp.ClientSession()\n",
        "from azure.identity import DefaultAzureCredential\nDefaultAzureCredential()\n",
        "from azure.mgmt.compute import ComputeManagementClient\nComputeManagementClient\n",
        "from azure.data.tables import TableClient\nTableClient\n",
        "from patchwave.storage import Storage\nRecords\n",
        "from patchwave.azure.virtual_machines import anything\nanything\n",
        "from activities import install\ninstall\n",
        "from patchwave.settings import Settings\nSettings()\n",
        "import asyncio\nasyncio.sleep(1)\n",
        "def later():\n    import secrets\n    return secrets.token_hex()\n",
    ],
)
def test_an_orchestrator_cannot_use(source: str):
    assert "TID251" in banned(source, "orchestrators")


def test_an_orchestrator_can_use_what_replays():
    source = (
        "from datetime import UTC, datetime, timedelta\n"
        "import azure.durable_functions as durable\n"
        "from durabletask import task\n"
        "from patchwave.domain.runs.run import RunState\n"
        "print(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(1), durable, task, RunState)\n"
    )
    assert banned(source, "orchestrators") == []


def test_the_bans_are_for_orchestrators_only():
    assert banned("import time\ntime.sleep(1)\n", "activities") == []


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("patchwave/domain/workflow", "from patchwave.settings import Settings", "the layers of the app"),
        ("patchwave/domain/core", "import patchwave.domain.fleet.machine", "the areas of the domain"),
        ("patchwave/domain/core", "import azure.core", "domain decides without I/O"),
        ("orchestrators", "import patchwave.storage", "orchestrators import domain only"),
        ("orchestrators", "import random", "orchestrators import no clock"),
        ("activities", "import orchestrators.runtime", "the layers of the app"),
        ("patchwave/azure", "import activities", "the layers of the app"),
        ("triggers", "import orchestrators.run", "triggers, the API and services start orchestrations"),
        ("patchwave/api", "import triggers.event_grid", "the layers of the app"),
        ("patchwave/storage", "import local.stack", "the app knows nothing of the local stack"),
        (
            "local/azure_simulator",
            "import patchwave.domain.azure.install_request",
            "the simulator is an independent reading",
        ),
        ("local/functions_host", "import orchestrators.runtime", "the embedded host knows the app through"),
        ("patchwave/cli", "import patchwave.domain.runs.run", "the command speaks HTTP"),
    ],
)
def test_the_import_linter_refuses(module: str, line: str, contract: str, tmp_path: Path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "function_app.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / module / "intruder.py").write_text(line + "\n", encoding="utf-8")
    found = lint_imports(tmp_path)
    assert [name for name in found if contract in name] == found
    assert found


def test_the_import_linter_accepts_this_checkout():
    assert lint_imports(ROOT) == []


def lint_imports(folder: Path) -> list[str]:
    """The names of the contracts that are broken in a checkout."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"},
        check=False,
    )
    verdicts = re.findall(r"^(.+?) (KEPT|BROKEN)", done.stdout, re.MULTILINE)
    assert verdicts, done.stdout + done.stderr
    return [name for name, verdict in verdicts if verdict == "BROKEN"]
