"""Writes ``docs/openapi.json`` from the routes of the app; with ``--check`` it only says whether it is up to date."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import triggers  # noqa: E402, F401 # pyright: ignore[reportUnusedImport] - one of the routes is there
from patchwave.api.openapi import openapi  # noqa: E402 - found through the line above

DOCUMENT = ROOT / "docs" / "openapi.json"


def main(arguments: list[str]) -> int:
    """Writes the document, or with ``--check`` compares it; 1 when it is not what would be written."""
    document = json.dumps(openapi(), indent=2, ensure_ascii=False) + "\n"
    if "--check" not in arguments:
        DOCUMENT.write_text(document, encoding="utf-8")
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == document:
        return 0
    print(f"{DOCUMENT.relative_to(ROOT)} is not what the routes say: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
