"""``patchwave demo`` and ``patchwave serve``: the local stack, in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo() -> None:
    """Patch the sample fleet on this machine and write .local/demo/report.json."""


def serve(
    arm: Annotated[str, typer.Option("--arm")] = "",
    ca: Annotated[Path | None, typer.Option("--ca")] = None,
) -> None:
    """Keep the local stack running."""
