"""The simulator that the tests of this folder share."""

from tests.support.simulator import simulator

__all__ = ["simulator"]
