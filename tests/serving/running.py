"""Servers in a thread of this process, on ports that are free."""

import asyncio
import queue
import threading
from types import TracebackType
from typing import Any, Self

from diffusion_policy.control.strategies import Chunking
from diffusion_policy.serving.offer import Offer
from diffusion_policy.serving.server import PolicyServer, ServerConfig
from tests.control.clocks import STEP

PATIENCE_S = 60.0


def offer(policy: Any, **settings: Any) -> Offer:
    return Offer(policy=policy, **{"step_s": STEP, "strategy": Chunking(2), **settings})


class Running:
    """A server that listens; `stop` and `start` again take the same port."""

    def __init__(self, offered: Offer, **config: Any) -> None:
        self.offered, self._config = offered, {"port": 0, **config}
        self.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._config['port']}"

    @property
    def port(self) -> int:
        return self._config["port"]

    @property
    def clients(self) -> int:
        return self.server.health()["clients"]

    def start(self) -> None:
        ready: queue.Queue[Any] = queue.Queue()

        async def run() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await self.server.run(self._stop, ready.put)

        def serve() -> None:
            try:
                asyncio.run(run())
            except Exception as error:
                ready.put(error)

        self.server = PolicyServer(self.offered, ServerConfig(**self._config))
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        said = ready.get(timeout=PATIENCE_S)
        if isinstance(said, Exception):
            raise said
        self._config["port"] = said

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
