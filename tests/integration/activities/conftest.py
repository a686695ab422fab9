"""Activities on the storage of this folder's parent and on the simulator."""

from __future__ import annotations

from tests.support.simulator import simulator

__all__ = ["simulator"]
