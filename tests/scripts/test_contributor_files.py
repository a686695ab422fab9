"""What contributors' tools read is in step with the repository: hooks, editor, container."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from local import ROOT
from patchwave.cli.app import whole


def read(path: str) -> Any:
    return json.loads((ROOT / path).read_text("utf-8"))


def test_the_hooks_run_what_lint_runs() -> None:
    recipe = re.search(r"^lint: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert recipe
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == [line.strip().lstrip("@") for line in recipe[1].splitlines()]


@pytest.mark.parametrize("configuration", read(".vscode/launch.json")["configurations"], ids=lambda each: each["name"])
def test_launch_configurations_start_what_is_there(configuration: dict[str, Any]) -> None:
    if configuration["module"] != "patchwave.cli":
        return
    name, *words = configuration["args"]
    whole().commands[name].make_context(name, words)


def test_the_container_has_the_python_of_azure() -> None:
    container = read(".devcontainer/devcontainer.json")
    assert container["image"].endswith(":3.13")
    assert container["postCreateCommand"] == "make setup"


@pytest.mark.parametrize("path", [".vscode/extensions.json", ".vscode/settings.json", ".vscode/launch.json"])
def test_settings_of_the_editor_are_tracked(path: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False)
    assert ignored.returncode == 1
    assert read(path)


def test_paths_of_the_guide_exist() -> None:
    paths = re.findall(r"`((?:[\w.-]+/)[\w./-]*)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
