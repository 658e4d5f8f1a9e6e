"""What `closed_loop.py` runs in processes of their own: the robot, what is measured beside it, and what loads cores.

    python benchmarks/closed_loop_parts.py PART WORDS...

Ticks lie on a fixed grid. A miss is an action that is there later than 10 ms after its tick, or none, because the loop
was busy with earlier ones until the next was due.
"""

import asyncio
import json
import math
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LATE_S = 0.010
BESIDE = 1.01
"""Rate of what is measured beside the robot, by the robot's. At the same rate they would meet each other, and plans, as
chance put them when they began: an echo's p99 was 0.9 to 1.4 ms in some runs, and 3.5 to 4.3 ms in others."""


def due_ticks(hz: float, seconds: float) -> int:
    """Returns how many ticks there are in a measurement."""
    return round(hz * seconds)


def ticks(
    hz: float,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[float]:
    """Yields the moment of each tick of a fixed grid when it has come; left out are those before the latest one due."""
    begun, number = clock() + 0.2, 0
    while number < due_ticks(hz, seconds):
        due = begun + number / hz
        sleep(max(0.0, due - clock()))
        yield due
        number = max(number + 1, math.floor((clock() - begun) * hz))


def beside(hz: float, seconds: float) -> Iterator[float]:
    """Yields as many ticks as the robot has, a little faster: they come at every moment of its steps and its plans."""
    return ticks(BESIDE * hz, seconds / BESIDE)


def missed(late: Any, due: int) -> int:
    """Returns how many of the ticks that were due came too late or not at all.

    Args:
        late: seconds by which each tick that came was late.
        due: how many there were to be.
    """
    return int((np.asarray(late) > LATE_S).sum()) + due - len(late)


def missed_stolen(late: Any, stolen: Any) -> int:
    """Returns how many ticks came too late while the hypervisor kept a processor; those that never came are not in it.

    Args:
        late: seconds by which each tick that came was late.
        stolen: seconds of processors that were kept since the tick before.
    """
    return int(((np.asarray(late) > LATE_S) & (np.asarray(stolen) > 0)).sum())


def stolen_s() -> float:
    """Returns how long a hypervisor kept processors that this machine wanted, seconds since its start, of all of them.

    Linux counts in hundredths; elsewhere, and without a hypervisor, it is 0 for ever.
    """
    stat = Path("/proc/stat")
    words = stat.read_text().splitlines()[0].split() if stat.is_file() else []
    return int(words[8]) / os.sysconf("SC_CLK_TCK") if len(words) > 8 else 0.0


def robot(url: str, hz: float, seconds: float, plans: float, out: str) -> None:
    """Steps PushT in real time by the server's actions."""
    import gymnasium

    from diffusion_policy_client import RemoteController

    env = gymnasium.make("diffusion_policy_envs:PushT-v0", control_hz=int(hz))
    obs, _ = env.reset(seed=0)
    late, trips, stolen, episodes, found = [], [], [], 1, {}
    with RemoteController(url) as controller:
        fields = list(controller.obs_spec)
        controller.observe({key: obs[key] for key in fields}, time.monotonic())
        controller.plan(time.monotonic())
        before = stolen_s()
        for due in ticks(hz, seconds):
            begun = time.monotonic()
            controller.observe({key: obs[key] for key in fields}, due)
            tick = controller.tick(due)
            done = time.monotonic()
            late.append(done - due)
            trips.append(np.inf if tick.ahead or tick.held else done - begun)  # answered later than it was waited for
            obs, _, terminated, truncated, _ = env.step(tick.action.astype(env.action_space.dtype))
            if terminated or truncated:
                obs, _ = env.reset(seed=episodes)
                episodes += 1
            stolen.append((now := stolen_s()) - before)  # since the tick before
            before = now
        found = {**vars(controller.counts), "episodes": episodes}
        over = [over_inference(controller, url, {key: obs[key] for key in fields}) for _ in range(int(plans))]
    np.savez(out, late=late, trips=trips, stolen=stolen, over=over, counts=json.dumps(found))


def over_inference(controller: Any, url: str, obs: dict[str, Any]) -> float:
    """Returns how much longer an observation and its plan took than the plan's computation, seconds."""
    before = health(url)["planned_s"]
    begun = time.monotonic()
    controller.observe(obs, begun)
    controller.plan(begun)
    took = time.monotonic() - begun
    controller.tick(begun)  # tells the robot's time
    return took - (health(url)["planned_s"] - before)


def health(url: str) -> dict[str, Any]:
    """Returns what the server says of itself."""
    with urllib.request.urlopen(url.replace("ws://", "http://") + "/healthz", timeout=60) as said:
        found: dict[str, Any] = json.load(said)
    return found


def sleeper(hz: float, seconds: float, out: str) -> None:
    """Does nothing but wake up in time."""
    late = [time.monotonic() - due for due in beside(hz, seconds)]
    np.savez(out, late=late)


def echo_server() -> None:
    """Sends back what it gets, until it is ended."""
    from websockets.asyncio.server import serve

    async def back(connection: Any) -> None:
        async for data in connection:
            await connection.send(data)

    async def run() -> None:
        async with serve(back, "127.0.0.1", 0, compression=None) as server:
            print(f"echo at ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]},", flush=True)
            await asyncio.get_running_loop().create_future()

    asyncio.run(run())


def echo(url: str, hz: float, seconds: float, out: str) -> None:
    """Sends what the robot sends, to a server that sends it back."""
    from websockets.sync.client import connect

    from diffusion_policy_client.protocol import pack

    obs = {"keypoints": np.zeros((9, 2), np.float32), "agent_pos": np.zeros(2, np.float32)}
    payload = pack({"type": "observe", "time_s": 1.0, "obs": obs}) + pack({"type": "tick", "id": 1, "time_s": 1.0})
    trips = []
    with connect(url, compression=None, proxy=None) as connection:
        for _ in beside(hz, seconds):
            begun = time.monotonic()
            connection.send(payload)
            connection.recv()
            trips.append(time.monotonic() - begun)
    np.savez(out, trips=trips)


def burn() -> None:
    """Keeps a core busy."""
    while True:
        sum(range(10_000))


PARTS: dict[str, Callable[..., None]] = {
    "robot": robot, "sleeper": sleeper, "echo-server": echo_server, "echo": echo, "burn": burn
}  # fmt: skip


if __name__ == "__main__":
    PARTS[sys.argv[1]](*[float(word) if re.fullmatch(r"[\d.]+", word) else word for word in sys.argv[2:]])
