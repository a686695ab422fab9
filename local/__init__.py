"""Tools for a developer's machine; never deployed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
