"""One client at its connection: its session, what is said to it, and the plans that are made for it."""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from diffusion_policy.errors import DiffusionPolicyError
from diffusion_policy.serving.inference import Inference
from diffusion_policy.serving.offer import Offer
from diffusion_policy.serving.protocol import number, pack, unpack, whole
from diffusion_policy.serving.session import Session, refusal

logger = logging.getLogger(__name__)

_HELLO_S = 10.0  # for a client to say who it is
_TAKEN_S = 5.0  # for a client to take an answer
_WAITING_BYTES = 64 * 1024  # of answers, beside the library's 32 KiB, that wait for a client to read them
_GOODBYE_S = 3.0  # for a connection to end


class DeafError(Exception):
    """A client does not take what is said to it."""


class Attendant:
    """Serves one client. Plans are made for it one at a time: nobody crowds the others out.

    Args:
        connection: the client's.
        offer: what the server offers.
        inference: makes the plans.

    Attributes:
        name: what the client calls itself, and from where it comes.
    """

    def __init__(self, connection: ServerConnection, offer: Offer, inference: Inference) -> None:
        host, port, *_ = connection.remote_address or ("nowhere", 0)
        self.name = f"a client from {host} port {port}"
        self._connection, self._offer, self._inference = connection, offer, inference
        with suppress(OSError, AttributeError):  # a transport that has no such socket
            connection.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, _WAITING_BYTES
            )
        self._planning: asyncio.Task[None] | None = None
        self._said = False  # that the policy is too slow
        self._asked: dict[str, Any] | None = None  # a `plan` that waits for the one that is being made

    async def attend(self) -> None:
        """Serves until the client goes.

        Raises:
            RefusedError: the client does not fit.
            ProtocolError: it said something that is no message.
            TimeoutError: it said nothing.
            DeafError: it does not read its answers.
        """
        async with asyncio.timeout(_HELLO_S):
            hello = unpack(await self._connection.recv())
        session = Session(self._offer, hello)
        self.name = f"{session.name}, {self.name}"
        await self._say(session.welcome())
        async for data in self._connection:
            message = unpack(data)
            if message["type"] == "reset" and self._asked is not None:  # its time is of the episode before
                asked, self._asked = self._asked, None
                await self._say(refusal(asked["id"], "observation", "another episode began"))
            answer = self._plan_asked(message) if message["type"] == "plan" else session.take(message)
            if answer is not None:
                await self._say(answer)
            self._plan_on(session)
            ahead = session.ahead(answer)  # the robot has its action by now
            if ahead is not None:
                await self._say(ahead)

    def leave(self) -> None:
        """Lets go of the plan that is being made."""
        if self._planning is not None:
            self._planning.cancel()

    async def _say(self, message: dict[str, Any]) -> None:
        """Sends a message; raises DeafError where it is not taken: the answers before it were not read, either."""
        try:
            async with asyncio.timeout(_TAKEN_S):
                await self._connection.send(pack(message))
        except TimeoutError as error:
            raise DeafError(f"it did not read its answers for {_TAKEN_S:g} s") from error

    def _plan_asked(self, message: dict[str, Any]) -> dict[str, Any] | None:
        number_of, _ = whole(message, "id"), number(message, "time_s")
        if self._asked is not None:
            return refusal(number_of, "observation", "a plan was asked for already; wait for it")
        self._asked = message
        return None

    def _plan_on(self, session: Session) -> None:
        """Begins with plans if there is one to be made and none is."""
        if self._planning is None and (self._asked is not None or session.is_due()):
            self._planning = asyncio.create_task(self._plan(session))

    async def _plan(self, session: Session) -> None:
        """Makes plans as long as there are some to be made."""
        try:
            while self._asked is not None or session.is_due():
                asked, self._asked = self._asked, None
                answer = await self._plan_once(session, asked)
                if answer is not None:
                    await self._say(answer)
        except ConnectionClosed:
            pass
        except DeafError as error:
            logger.warning("dropped %s: %s", self.name, error)
            self._connection.transport.abort()  # `attend` sees it, and ends
        finally:
            self._planning = None

    async def _plan_once(self, session: Session, asked: dict[str, Any] | None) -> dict[str, Any] | None:
        episode = session.controller.episode
        try:
            question = session.question(asked)
            session.answered(question, await self._inference.answer(question))
        except DiffusionPolicyError as error:
            return session.failure(asked, error, episode)
        except Exception as error:  # a policy may raise anything: said to its client, and no plan is tried again
            logger.exception("a plan failed")
            return session.failure(asked, error, episode)
        if session.controller.slow is not None and not self._said:
            self._said = True
            logger.warning("%s, by %s: %s", self.name, session.strategy, session.controller.slow)
        return None if asked is None else {"type": "done", "id": asked["id"]}


async def dismiss(connection: ServerConnection, code: int, reason: str) -> None:
    """Ends a connection, whether the client listens or not.

    Args:
        connection: the client's.
        code: of the closing message.
        reason: for the client; 123 bytes at most are sent.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_GOODBYE_S):
            await connection.close(code, reason.encode()[:120].decode(errors="ignore"))
    connection.transport.abort()
