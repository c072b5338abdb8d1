"""A uvicorn HTTP protocol that detects slow and gone clients; draining on SIGTERM.

A host uses it as `uvicorn.run(app, http="downspout.server:Protocol")`. It needs the packages of
`pip install downspout[server]`.
"""

from .drain import DrainOnSignal
from .listener import CannotListen, listening
from .protocol import Protocol, StandaloneProtocol

__all__ = ["CannotListen", "DrainOnSignal", "Protocol", "StandaloneProtocol", "listening"]
