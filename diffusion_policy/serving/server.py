"""Policies over the network: many robots, each with a controller of its own, and one policy that plans for all.

Needs `websockets` and `msgpack` (the extra `serve`). `protocol` says what is said; `session` what it does; `attendant`
keeps a client's connection.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from diffusion_policy.errors import ConfigError
from diffusion_policy.serving.attendant import Attendant, DeafError, dismiss
from diffusion_policy.serving.door import Door
from diffusion_policy.serving.inference import Inference
from diffusion_policy.serving.offer import Offer, RefusedError
from diffusion_policy.serving.protocol import PROTOCOL, REFUSED, ProtocolError, pack

logger = logging.getLogger(__name__)

_OPENING_S = 10.0  # for a connection to become a websocket
_PING_S = 10.0  # between questions whether a client is still there, and for its answer
_LAST_PLAN_S = 5.0  # for the plan that is being made when the server ends
_QUEUED = 8  # messages of a client that wait; a faster one is slowed down by TCP
_IN_THE_DOOR = 16  # connections that are no clients yet, beside as many as there may be clients
_SPARE_BYTES = 64 * 1024  # of a message, beside the observation's arrays


@dataclass(frozen=True)
class ServerConfig:
    """Where a server listens, and what it permits.

    Args:
        host: 127.0.0.1 is this machine alone; any other needs a token.
        port: 0 for one that is free.
        token: what clients must know; None lets all in.
        max_clients: robots at once.
        max_message_bytes: of a message; None: two observations and 64 KiB.
    """

    host: str = "127.0.0.1"
    port: int = 8642
    token: str | None = None
    max_clients: int = 16
    max_message_bytes: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.port, int) and 0 <= self.port <= 65535):
            raise ConfigError(f"port must be in [0, 65535], but got {self.port!r}")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise ConfigError("token must be 8 or more plain letters and digits; e.g. from `openssl rand -hex 16`")
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"host={self.host} lets other machines in, so token= is required; clients give the same, or take "
                f"host=127.0.0.1"
            )
        if self.max_clients < 1:
            raise ConfigError(f"max_clients must be at least 1, but got {self.max_clients}")
        if self.max_message_bytes is not None and self.max_message_bytes < 1024:
            raise ConfigError(f"max_message_bytes must be at least 1024, but got {self.max_message_bytes}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class PolicyServer:
    """Serves one policy to many clients.

    Args:
        offer: the policy and the rules under which it acts.
        config: where, and for whom.
    """

    def __init__(self, offer: Offer, config: ServerConfig) -> None:
        self._offer, self._config = offer, config
        self._limit = config.max_message_bytes or 2 * offer.observation_bytes + _SPARE_BYTES
        if self._limit < offer.observation_bytes + 1024:
            raise ConfigError(
                f"max_message_bytes={self._limit} is less than one observation of this policy, "
                f"{offer.observation_bytes + 1024}"
            )
        offer.controller()  # refuses rules that do not fit the policy: now, and not each client
        self._inference = Inference(offer.policy)
        self._clients: set[ServerConnection] = set()
        self._door = Door(config.max_clients + _IN_THE_DOOR)

    async def run(self, stop: asyncio.Event, ready: Callable[[int], object] = lambda port: None) -> None:
        """Serves until `stop` is set.

        Args:
            stop: ends it; clients are told.
            ready: is told the port as soon as clients may come.

        Raises:
            ConfigError: the host or port cannot be listened on.
        """
        async with await self._listening() as server:
            self._inference.start()
            ready(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()
        if not self._inference.stop(_LAST_PLAN_S):
            logger.warning("a plan took longer than %g s; its thread was left behind", _LAST_PLAN_S)

    async def _listening(self) -> Server:
        host, port = self._config.host, self._config.port
        try:
            return await serve(
                self._attend, host, port, origins=[None], compression=None, process_request=self._admit,
                max_size=self._limit, max_queue=_QUEUED, open_timeout=_OPENING_S, ping_interval=_PING_S,
                ping_timeout=_PING_S, close_timeout=1.0, logger=_quiet(),
                create_connection=self._door.connection,  # type: ignore[arg-type]  # as its documentation has it
            )  # fmt: skip
        except (OSError, UnicodeError) as error:
            said = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot listen on {host} port {port}: {said}; choose another host= or port=") from error

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Returns the answer to a plain HTTP request, or to a client without the token; None lets it go on."""
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, json.dumps(self.health()) + "\n")
        if request.path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "there are / for robots, and /healthz\n")
        if self._config.token is not None:
            given = request.headers.get_all("Authorization")
            expected = f"Bearer {self._config.token}"
            if len(given) != 1 or not hmac.compare_digest(given[0].encode(), expected.encode()):
                return connection.respond(HTTPStatus.UNAUTHORIZED, "wrong token, or none\n")
        return None

    def health(self) -> dict[str, Any]:
        """Returns what /healthz says."""
        return {
            "status": "ok",
            "protocol": PROTOCOL,
            "clients": len(self._clients),
            "plans": self._inference.answered,
            "planned_s": round(self._inference.computed_s, 6),
            "planning_s": round(self._inference.busy_s, 3),
        }

    async def _attend(self, connection: ServerConnection) -> None:
        """Serves one client from its hello to its end; whatever it does, the others do not notice."""
        if len(self._clients) >= self._config.max_clients:
            await dismiss(
                connection, 1013, f"{self._config.max_clients} clients are here already; max_clients= sets it"
            )
            return
        self._door.passed(connection)
        self._clients.add(connection)
        client = Attendant(connection, self._offer, self._inference)
        try:
            await client.attend()
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code == 1011:  # the library's, for pings without an answer
                logger.warning("dropped %s: %s", client.name, error.sent.reason)
        except DeafError as error:
            logger.warning("dropped %s: %s", client.name, error)
            connection.transport.abort()  # it would not read a goodbye, either
        except RefusedError as error:
            logger.info("refused %s: %s", client.name, error)
            with suppress(ConnectionClosed):
                await connection.send(pack({"type": "refused", "message": str(error)}))
                await dismiss(connection, REFUSED, str(error))
        except TimeoutError:
            await dismiss(connection, 1002, "no hello came in time")
        except ProtocolError as error:
            logger.info("closed the connection of %s: %s", client.name, error)
            await dismiss(connection, 1002, str(error))
        except Exception:  # a defect of ours: said whole, and only this client is lost
            logger.exception("%s was lost by a defect of the server", client.name)
            await dismiss(connection, 1011, "a defect of the server; its log says which")
        finally:
            client.leave()
            self._clients.discard(connection)


def _quiet() -> logging.Logger:
    """Returns the library's logger: what strangers send is no news, its own defects are."""
    found = logging.getLogger("diffusion_policy.serving.websockets")
    found.setLevel(logging.CRITICAL)
    return found
