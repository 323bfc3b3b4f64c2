"""Where weights lie, whether they are whole, and the conversion of those that a Python package carries."""

from pytest_npuconf.weights.checkpoint import Checkpoint, read_checkpoint
from pytest_npuconf.weights.search import find_weights

__all__ = ["Checkpoint", "find_weights", "read_checkpoint"]
