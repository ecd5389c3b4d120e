"""Client of the Quiesce scheduler. `connect` is where to begin; `quiesce.aio` is the same for asyncio.

`quiesce.v1` is the generated contract, `quiesce.hookkit` the kit for shutdown hooks.
"""

from quiesce.client import Client, connect
from quiesce.errors import Problem, Violation
from quiesce.following import FINAL_STATES, name_of

__all__ = ["FINAL_STATES", "Client", "Problem", "Violation", "connect", "name_of"]
