"""One connection to the server, from the handshake to its end. No call lasts longer than it is let."""

import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from diffusion_policy_client.errors import ClientError, MismatchError, ServerLostError
from diffusion_policy_client.protocol import PROTOCOL, ProtocolError, mapping, pack, unpack

_CLOSE_S = 0.2  # for the server to say goodbye, too
_PING_S = 5.0  # between questions whether the server is there, and for its answer


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
        try:
            self._connection = self._connected(url, token, open_s)
            _limit_sending(self._connection.socket, send_s)
            self.send({"type": "hello", "protocol": PROTOCOL, **hello})
            self.welcome = self._agreed(url, open_s)
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
        if welcome["type"] != "welcome" or welcome.get("protocol") != PROTOCOL:
            raise MismatchError(
                f"this client speaks protocol {PROTOCOL}, the server at {url} {welcome.get('protocol')!r}; install "
                f"matching versions"
            )
        try:
            for name in ("obs", "action", "horizons", "limits"):
                mapping(welcome, name)
        except ProtocolError as error:
            raise MismatchError(f"the server at {url} said something else than expected: {error}") from error
        return welcome

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message.

        Raises:
            ServerLostError: the connection is over, or the server does not take it.
        """
        try:
            self._connection.send(pack(message))
        except (WebSocketException, OSError) as error:
            raise ServerLostError(f"the connection ended: {error}") from error

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
        with suppress(WebSocketException, OSError, ClientError):
            self._closing.close()


def _limit_sending(sock: socket.socket, seconds: float) -> None:
    """Lets the operating system give up a send that lasts; reading is not concerned."""
    if sys.platform == "win32":
        value: bytes | int = max(1, int(1000 * seconds))
    else:
        value = struct.pack("ll", int(seconds), int(1e6 * (seconds % 1)))
    with suppress(OSError):  # a kind of socket that knows no such limit
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
