"""What the tests of this folder share."""

from tests.support.document_examples import examples
from tests.support.simulator import simulator

__all__ = ["examples", "simulator"]
