"""The service by its first name; see `sparcom.service`."""

from sparcom.service import *  # noqa: F403
from sparcom.service import __all__ as __all__
