"""Throws garbage at a policy server for a while, beside a robot that must not notice.

    python scripts/fuzz_server.py [--seconds 300] [--seed 0]

A server in a process of its own serves a small policy with random weights. Clients send it bytes, frames, messages and
HTTP that are wrong in random ways, and vanish at random moments. Beside them one proper robot plans and acts. It is a
finding, and exit code 1, if the server ends, says that it has a defect, refuses a proper client, sends an action that
is not finite or not permitted, keeps clients that are gone, or grows by more than 200 MB. Where too few clients came to
say how it grows, that is exit code 1, too.
"""

import argparse
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from diffusion_policy_client import RemoteController
from diffusion_policy_client.protocol import ARRAY, PROTOCOL, pack, unpack

GROWTH = 200e6  # bytes
SETTLED = 200  # clients, after which a server has what it needs, and grows no more
HELLO = {"type": "hello", "protocol": PROTOCOL, "client": "fuzz", "obs": None, "step_s": None, "planning": "auto"}
SERVE = "import sys; from diffusion_policy.cli.entry import serve; sys.exit(serve())"


def checkpoint(folder: Path) -> Path:
    """Writes a small policy with random weights."""
    import torch

    from diffusion_policy.config import ActionSpec, ObsField
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig

    torch.manual_seed(0)
    config = {
        "horizons": {"obs_horizon": 2, "action_horizon": 4, "pred_horizon": 8},
        "denoiser": {"name": "unet1d", "down_dims": [16, 32], "embed_dim": 16, "kernel_size": 3, "n_groups": 4},
        "sampler": {"num_inference_steps": 2},
    }
    obs = {"pos": ObsField("low_dim", (2,)), "eye": ObsField("low_dim", (8, 8))}
    action = ActionSpec((2,), low=-1.0, high=1.0)
    DiffusionPolicy(DiffusionPolicyConfig.from_plain(config), obs, action).eval().save(folder / "policy.pt")
    return folder / "policy.pt"


class Fuzz:
    """Wrong things to say, at random.

    Args:
        seed: of the chance.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        """Returns some plain value, number, array or nonsense."""
        kinds = [
            lambda: None, lambda: self.chance.choice([True, False]), lambda: self.chance.randint(-(2**63), 2**64 - 1),
            lambda: self.chance.choice([0, 1, -1, 2**31, 0.0, 1e308, -1e308, float("nan"), float("inf")]),
            lambda: self.chance.uniform(-10, 10), lambda: self.chance.randbytes(self.chance.randint(0, 40)),
            lambda: "".join(chr(self.chance.randint(0, 0x2FF)) for _ in range(self.chance.randint(0, 20))),
            self.array,
            lambda: msgpack.ExtType(self.chance.randint(0, 3), self.chance.randbytes(self.chance.randint(0, 30))),
            lambda: msgpack.ExtType(ARRAY, msgpack.packb([self.value(9), self.value(9), self.value(9)], default=str)),
        ]  # fmt: skip
        if depth < 3:
            kinds += [
                lambda: [self.value(depth + 1) for _ in range(self.chance.randint(0, 4))],
                lambda: {self.word(): self.value(depth + 1) for _ in range(self.chance.randint(0, 4))},
            ]
        return self.chance.choice(kinds)()

    def word(self) -> str:
        """Returns a key that means something, most often."""
        known = ["type", "id", "time_s", "obs", "pos", "eye", "at", "moved", "seed", "stopped", "sent", "sent_s"]
        return self.chance.choice([*known, "protocol", "", "\x00", "x" * 50])

    def array(self) -> np.ndarray:
        """Returns an array, seldom of a shape that fits."""
        shape = self.chance.choice([(2,), (8, 8), (), (0,), (1, 2), (3,)])
        content = np.array([self.chance.choice([0.0, 1.0, np.nan, np.inf, 1e300, -3.0])])
        with np.errstate(over="ignore", invalid="ignore"):
            return np.broadcast_to(content, shape).astype(self.chance.choice(["<f4", "<f8", "|u1", "<i8", "|b1"]))

    def message(self) -> dict[str, Any]:
        """Returns a message that is right but for some of it."""
        now = self.chance.uniform(0, 3)
        obs = {"pos": np.full(2, now, np.float32), "eye": np.zeros((8, 8), np.float32)}
        said: dict[str, Any] = self.chance.choice(
            [
                {"type": "observe", "time_s": now, "obs": obs},
                {"type": "tick", "id": 1, "time_s": now},
                {"type": "tick", "id": 1, "time_s": now, "sent": np.zeros(2, np.float32), "sent_s": now},
                {"type": "plan", "id": 2, "time_s": now},
                {"type": "reset", "id": 3, "seed": 4, "at": np.zeros(2, np.float32), "moved": False, "stopped": None},
                {"type": "release", "id": 5},
                dict(HELLO),
            ]
        )
        for _ in range(self.chance.choice([0, 0, 0, 1, 1, 2])):
            obs_said = said.get("obs")  # an earlier round may have made it anything
            where = obs_said if isinstance(obs_said, dict) and obs_said and self.chance.random() < 0.5 else said
            where[self.chance.choice([*where, self.word()])] = self.value()
        return said

    def data(self) -> bytes:
        """Returns a message's bytes, whole or damaged; or some bytes."""
        if self.chance.random() < 0.1:
            return self.chance.randbytes(self.chance.randint(0, 300))
        try:
            found = bytearray(pack(self.message()))
        except (TypeError, ValueError, OverflowError):
            return b""
        if self.chance.random() < 0.2 and found:
            for _ in range(self.chance.randint(1, 4)):
                found[self.chance.randrange(len(found))] = self.chance.randrange(256)
        if self.chance.random() < 0.1:
            del found[self.chance.randrange(len(found) + 1) :]
        return bytes(found) * self.chance.choice([1] * 20 + [2, 3000])


def attack(fuzz: Fuzz, port: int) -> int:
    """Sends one client's worth of nonsense; returns how many actions were permitted and finite ones.

    Raises:
        ValueError: an action was neither.
    """
    kind, actions = fuzz.chance.random(), 0
    if kind < 0.15:  # no websocket at all
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(
                fuzz.chance.choice([b"GET / HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01"])
            )
            plain.sendall(fuzz.chance.randbytes(fuzz.chance.randint(0, 3000)))
        return 0
    with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None, close_timeout=0.2) as connection:
        if kind < 0.9:
            connection.send(pack(HELLO))
            connection.recv(timeout=30)
        for _ in range(fuzz.chance.randint(0, 25)):
            if fuzz.chance.random() < 0.03:  # frames that are none, and half a one
                connection.socket.sendall(fuzz.chance.choice([fuzz.chance.randbytes(40), b"\x82\xfe\x10\x00abcdhalf"]))
                connection.socket.shutdown(socket.SHUT_RDWR)
                break
            data = fuzz.data()
            connection.send(data if fuzz.chance.random() < 0.97 else data.decode("latin1"))
            if fuzz.chance.random() < 0.3:
                with suppress(TimeoutError):
                    actions += permitted(unpack(connection.recv(timeout=0.2)))
        if fuzz.chance.random() < 0.3:
            connection.socket.shutdown(socket.SHUT_RDWR)  # killed
    return actions


def permitted(message: dict[str, Any]) -> int:
    """Returns 1 for a permitted action, 0 for another message.

    Raises:
        ValueError: an action is not permitted.
    """
    if message["type"] not in ("action", "ahead"):
        return 0
    said = message["action"][None] if message["type"] == "action" else message["next"]
    if said is not None and (said.shape[1:] != (2,) or not (np.abs(said) <= 1).all()):
        raise ValueError(f"the server sent {said}")
    return message["type"] == "action"


class Robot:
    """The proper one."""

    def __init__(self, port: int) -> None:
        self._controller = RemoteController(f"ws://127.0.0.1:{port}", patience_s=30.0, prompt_s=None)
        self.ticks = 0

    def tick(self) -> None:
        """Raises ValueError if the robot notices anything."""
        now = time.monotonic()
        self._controller.observe({"pos": np.zeros(2), "eye": np.zeros((8, 8))}, now)
        if self.ticks == 0:
            self._controller.plan(now)
        tick = self._controller.tick(now)
        permitted({"type": "action", "action": tick.action})
        if tick.held or tick.stopped or self._controller.error or self._controller.counts.lost:
            raise ValueError(f"the robot noticed: {tick}, {self._controller.error}, {self._controller.counts}")
        self.ticks += 1

    def close(self) -> None:
        """Ends its connection."""
        self._controller.close()


def memory(pid: int) -> int:
    """Returns the resident bytes of a process; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def fuzz_for(seconds: float, seed: int, port: int, pid: int) -> str:
    """Returns what was done in so many seconds.

    Raises:
        ValueError: something was found.
    """
    fuzz, robot = Fuzz(seed), Robot(port)
    clients, actions, begun, first = 0, 0, time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        with suppress(WebSocketException, OSError, EOFError):
            clients += 1
            actions += attack(fuzz, port)
        robot.tick()
        if clients == SETTLED:
            first = memory(pid)
    robot.close()
    time.sleep(2.0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as said:
        health = said.read().decode()
    if '"clients": 0' not in health:
        raise ValueError(f"clients that are gone are still there: {health}")
    if clients < 2 * SETTLED:
        raise ValueError(
            f"only {clients} clients came, so how the server grows was NOT checked; {2 * SETTLED} are needed: take "
            f"more --seconds"
        )
    grown = memory(pid) - first
    if grown > GROWTH:
        raise ValueError(f"the server grew by {grown / 1e6:.0f} MB")
    return (
        f"{clients} wrong clients, {actions} permitted actions to them, {robot.ticks} ticks of the robot, "
        f"memory grew by {grown / 1e6:.0f} MB; {health.strip()}"
    )


def main() -> int:
    """Returns the exit code: 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # how connections of ours end is no news
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is not left behind
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        words = [str(checkpoint(Path(folder))), "port=0", "control_hz=10", "max_clients=64", "safe_action=[0,0]"]
        server = subprocess.Popen([sys.executable, "-c", SERVE, *words], stdout=subprocess.PIPE, stderr=log, text=True)
        found, said = [], ""
        try:
            assert server.stdout is not None
            port = re.search(r":(\d+),", server.stdout.readline())
            said = fuzz_for(args.seconds, args.seed, int(port[1]) if port else 0, server.pid)
        except Exception as error:  # whatever it is, it is a finding
            found.append(f"{type(error).__name__}: {error}")
        finally:
            ended = server.poll()
            server.send_signal(signal.SIGTERM)
            code = server.wait(30)
        log.seek(0)
        text = log.read()
        if ended is not None or code != 0:
            found.append(f"the server ended with {ended if ended is not None else code}")
        told = re.search(r"Traceback|defect", text)
        if told:
            found.append(text[max(0, told.start() - 1000) : told.start() + 3000])
        print(said)
        print("\n".join(found) if found else f"nothing was found in {args.seconds:g} s, seed {args.seed}")
        return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
