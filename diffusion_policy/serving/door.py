"""How many may stand in the door of a server: connections that were opened, and are no clients yet."""

import logging
import time
from typing import Any

from websockets.asyncio.server import ServerConnection

logger = logging.getLogger(__name__)

_SAID_S = 10.0  # between two lines about the crowd


class Door:
    """Lets so many connections wait at once; one more, and the one that waits longest is cut off.

    So whoever opens connections and says nothing keeps nobody out who says what is expected at once.

    Args:
        most: connections that may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[ServerConnection, None] = {}  # in the order they came
        self._cut_off, self._said_s = 0, float("-inf")

    def __len__(self) -> int:
        """Returns how many connections wait."""
        return len(self._waiting)

    def connection(self, *args: Any, **settings: Any) -> ServerConnection:
        """Returns a new connection, which stands in the door from its first byte to its last, or `passed`."""
        return _Counted(self, *args, **settings)

    def passed(self, connection: ServerConnection) -> None:
        """Is told that a connection waits no more."""
        self._waiting.pop(connection, None)

    def came(self, connection: ServerConnection) -> None:
        """Is told that a connection was opened."""
        self._waiting[connection] = None
        if len(self._waiting) <= self._most:
            return
        longest = next(iter(self._waiting))
        self.passed(longest)
        longest.transport.abort()
        self._cut_off += 1
        if time.monotonic() - self._said_s >= _SAID_S:
            logger.warning("%d connections opened and said nothing; cut off so far: %d", self._most + 1, self._cut_off)
            self._said_s = time.monotonic()


class _Counted(ServerConnection):
    def __init__(self, door: Door, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._door = door

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._door.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.passed(self)
        super().connection_lost(exc)
