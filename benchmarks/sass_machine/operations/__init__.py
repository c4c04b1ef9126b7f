"""What each operation of the machine does to the lanes that execute it.

A function returns None, or where its lanes go next: an address, or one for each lane. Modifiers
that would change the result and are not known here raise UnknownError.
"""

from sass_machine.operations import integers, moving, numbers
from sass_machine.operations.registry import OPERATIONS, Operation

__all__ = ["OPERATIONS", "Operation", "integers", "moving", "numbers"]
