"""One connection to the server, from the handshake to its end. No call lasts longer than it is let."""

import logging
import select
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from diffusion_policy_client.errors import ClientError, MismatchError, ServerLostError
from diffusion_policy_client.outbox import Outbox
from diffusion_policy_client.protocol import PROTOCOL, ProtocolError, mapping, pack, unpack

_CLOSE_S = 0.2  # for what is still to be sent, and for the server to say goodbye, too
_PING_S = 5.0  # between questions whether the server is there, and for its answer
_UNNUMBERED = -1  # what is no observation, and no question


class Link:
    """A connection to a server that has admitted us.

    Args:
        url: ws:// or wss://.
        token: what the server wants to hear, None for nothing.
        hello: what we take for granted; see `protocol`.
        open_s: seconds to connect and agree.
        send_s: seconds after which a message that the server does not take counts as a lost connection.

    Attributes:
        welcome: what the server said.

    Raises:
        ServerLostError: there is no server, or it does not answer.
        MismatchError: it does not let us in, and says why.
    """

    def __init__(self, url: str, token: str | None, hello: Mapping[str, Any], open_s: float, send_s: float) -> None:
        self._closing = ExitStack()
        self._outbox: Outbox | None = None
        try:
            self._connection = self._connected(url, token, open_s)
            _limit_sending(self._connection.socket, send_s)
            self._outbox = Outbox(self._connection.send, partial(_takes, self._connection.socket))
            self.send({"type": "hello", "protocol": PROTOCOL, **hello})
            self.welcome = self._agreed(url, open_s)
            horizon = self.welcome["horizons"].get("obs_horizon")
            self._outbox.fewest = horizon if isinstance(horizon, int) else 1
        except BaseException:
            self.close()
            raise

    def _connected(self, url: str, token: str | None, open_s: float) -> ClientConnection:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            return self._closing.enter_context(
                connect(
                    url, additional_headers=headers, compression=None, proxy=None, open_timeout=open_s,
                    ping_interval=_PING_S, ping_timeout=_PING_S, close_timeout=_CLOSE_S, max_size=2**24,
                    logger=_quiet(),
                )
            )  # fmt: skip
        except InvalidURI as error:
            raise MismatchError(f"url: expected ws://HOST:PORT or wss://HOST:PORT, but got {url!r}") from error
        except InvalidStatus as error:
            status = error.response.status_code
            if status == 401:
                raise MismatchError(f"the server at {url} wants another token; give the one that it got") from error
            raise ServerLostError(f"{url} answered {status}; is it dp-serve?") from error
        except (OSError, InvalidHandshake, WebSocketException, EOFError) as error:
            raise ServerLostError(f"no server at {url}: {error or type(error).__name__}; is dp-serve there?") from error

    def _agreed(self, url: str, open_s: float) -> dict[str, Any]:
        welcome = self.receive(open_s)
        if welcome is None:
            raise ServerLostError(f"the server at {url} did not answer within {open_s:g} s")
        if welcome["type"] == "refused":
            raise MismatchError(f"the server at {url} refused: {welcome.get('message')}")
        protocol = welcome.get("protocol")
        if welcome["type"] != "welcome" or not isinstance(protocol, int) or protocol != PROTOCOL:
            raise MismatchError(
                f"this client speaks protocol {PROTOCOL}, the server at {url} {protocol!r:.20}; install "
                f"matching versions"
            )
        try:
            for name in ("obs", "action", "horizons", "limits"):
                mapping(welcome, name)
        except ProtocolError as error:
            raise MismatchError(f"the server at {url} said something else than expected: {error}") from error
        return welcome

    def send(self, message: Mapping[str, Any]) -> int:
        """Hands a message to the thread that sends; returns how many observations that waited made room for it.

        Raises:
            ServerLostError: the connection is over, or the server did not take what was sent before.
        """
        assert self._outbox is not None
        if self._outbox.failed is not None:
            raise ServerLostError(f"the connection ended: {self._outbox.failed}") from self._outbox.failed
        number = None if message["type"] == "observe" else message.get("id", _UNNUMBERED)
        return self._outbox.put(pack(message), number)

    def withdraw(self, number: int) -> None:
        """Forgets a question that was not sent yet, if it was not."""
        assert self._outbox is not None
        self._outbox.withdraw(number)

    def unsent(self) -> int:
        """Returns how many observations wait to be sent."""
        return 0 if self._outbox is None else self._outbox.unsent()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Returns the next message, None if there is none in time.

        Raises:
            ServerLostError: the connection is over, or what came is no message.
        """
        try:
            return unpack(self._connection.recv(timeout=max(0.0, timeout_s)))
        except TimeoutError:
            return None
        except (WebSocketException, OSError, EOFError, ProtocolError) as error:
            raise ServerLostError(f"the connection ended: {error}") from error

    def close(self) -> None:
        """Ends the connection; a second call does nothing."""
        if self._outbox is not None and not self._outbox.close(_CLOSE_S):
            with suppress(OSError):  # what is being sent ends now: saying goodbye would wait for it
                self._connection.socket.shutdown(socket.SHUT_RDWR)
        with suppress(WebSocketException, OSError, ClientError):
            self._closing.close()


def _quiet() -> logging.Logger:
    """Returns the library's logger: how a connection ended is said by errors, and by `RemoteController.error`."""
    found = logging.getLogger("diffusion_policy_client.websockets")
    found.setLevel(logging.CRITICAL)
    return found


def _takes(sock: socket.socket) -> bool:
    """Whether a socket takes some kilobytes now: systems say so where a good part of its buffer is free."""
    try:
        return bool(select.select([], [sock], [], 0)[1])
    except (OSError, ValueError):  # closed, or with a number that select does not know: sending shows which
        return False


def _limit_sending(sock: socket.socket, seconds: float) -> None:
    """Lets the operating system give up a send that lasts; reading is not concerned."""
    if sys.platform == "win32":
        value: bytes | int = max(1, int(1000 * seconds))
    else:
        value = struct.pack("ll", int(seconds), int(1e6 * (seconds % 1)))
    with suppress(OSError):  # a kind of socket that knows no such limit
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
