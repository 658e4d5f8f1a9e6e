"""Makes connections to a server, all of them to one that fits the first."""

from collections.abc import Mapping
from typing import Any

from diffusion_policy_client.errors import ClientError, MismatchError
from diffusion_policy_client.link import Link
from diffusion_policy_client.rest import Rest

_SEND_S = 0.5  # for the server to take some of what is sent; after that, or patience, the connection is lost


class Connector:
    """Connects as often as it is called.

    Args:
        url: ws:// or wss://.
        token: what the server wants to hear, None for nothing.
        hello: what is taken for granted; see `protocol`.
        connect_s: seconds to connect and agree.
        patience_s: how long a tick waits for its answer, None for little.

    Attributes:
        action: the action's schema, which must stay as it is; None for any.
    """

    def __init__(
        self, url: str, token: str | None, hello: Mapping[str, Any], connect_s: float, patience_s: float | None
    ) -> None:
        self.action: Mapping[str, Any] | None = None
        self._url, self._token, self._connect_s = url, token, connect_s
        self._hello = {"client": _name(), **hello}
        self._send_s = max(_SEND_S, patience_s or 0.0)

    def keep(self, welcome: Mapping[str, Any]) -> None:
        """Wants the same observations, actions and rate of every server from now on."""
        self.action = welcome["action"]
        self._hello |= {"obs": welcome["obs"], "step_s": welcome["step_s"]}

    def __call__(self) -> Link:
        """Returns a new connection.

        Raises:
            ServerLostError: there is no server.
            MismatchError: it does not fit, and says why.
        """
        link = Link(self._url, self._token, self._hello, self._connect_s, self._send_s)
        try:
            Rest(link.welcome)  # its rules must be some
            if self.action is not None and link.welcome["action"] != self.action:
                raise MismatchError(
                    f"{self._url} has another policy now: its action is {link.welcome['action']}, it was {self.action}"
                )
        except ClientError:
            link.close()
            raise
        return link


def _name() -> str:
    from diffusion_policy_client import __version__

    return f"diffusion-policy-client {__version__}"
