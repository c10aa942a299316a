"""Run one function over many items: in worker processes, or in this process.

`LocalEngine` and `SerialEngine` answer the same verbs (`Engine`). Neither knows what it computes.
"""

from sorep.engine.local import LocalEngine
from sorep.engine.outcome import Engine, Limits, Outcome
from sorep.engine.serial import SerialEngine

__all__ = ["Engine", "Limits", "LocalEngine", "Outcome", "SerialEngine"]
