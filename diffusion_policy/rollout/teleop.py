"""Demonstrations by hand: where the mouse points on the picture of the environment is the action.

The environment offers `env.unwrapped.action_at_pixel(xy (2,), size)` -> the action that a place on its square picture
stands for. Where it also offers `resting_action()`, which leaves all where it is, and `action_pixels(actions, size)`,
an episode begins when the mouse has come to that place; else by a click. No window library is known here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffusion_policy.errors import ConfigError
from diffusion_policy.film.picture import Frame
from diffusion_policy.rollout.attempts import Attempt, Keep
from diffusion_policy.rollout.env_facts import actions_a_second
from diffusion_policy.rollout.environments import Env
from diffusion_policy.rollout.recording import Recording

Command = Literal["restart", "next", "quit"]
Place = NDArray[np.float64]  # (2,), x and y in px of the frame

_NEAR = 0.05  # of the picture's width: so close to the agent, the mouse takes it by the hand
_USUAL_HZ = 10.0  # where the environment does not say
_HOLD_SECONDS = 0.8  # how long the end of an episode is shown
_RING = (235, 110, 30)


@dataclass(frozen=True)
class Hand:
    """What the person did since the last look.

    Args:
        mouse: where it is now, x and y in px of the frame that was shown; None if not known.
        clicked: whether a mouse button was pressed on the frame.
        commands: keys that mean something, in order.
    """

    mouse: tuple[float, float] | None = None
    clicked: bool = False
    commands: tuple[Command, ...] = ()


class TeleopWindow(Protocol):
    """Shows frames and tells what the person does."""

    def show(self, frame: Frame, lines: Sequence[str]) -> None:
        """Shows a picture (H, W, 3) and a few lines of text."""

    def poll(self) -> Hand:
        """Returns what happened since the last call; never waits."""


class Pace:
    """Keeps a steady rhythm in real time; a late tick is not made up for, which would rush the person.

    Args:
        hz: ticks per second.
        now: a monotonic clock, s.
        sleep: waits for so many seconds.
    """

    def __init__(
        self, hz: float, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.period = 1.0 / hz
        self._now, self._sleep = now, sleep
        self._due = now()

    def wait(self) -> None:
        """Returns one period after the last tick, or at once if that is past."""
        self._due += self.period
        left = self._due - self._now()
        if left > 0:
            self._sleep(left)
        else:
            self._due = self._now()


class Teleoperation:
    """A `Demonstrator`: a person who leads the environment with the mouse.

    R restarts the episode, N goes on to the next, Q ends the collection; what ends by success is kept by itself.

    Args:
        window: where it is shown.
        keep: as for `collect`; the window says what becomes of an episode.
        pace: makes the rhythm for so many actions per second.
    """

    name = "teleop"
    film_width = 512  # px

    def __init__(self, window: TeleopWindow, keep: Keep = "success", pace: Callable[[float], Pace] = Pace) -> None:
        self._window, self._keep, self._make_pace = window, keep, pace
        self._stopped = False

    def check(self, env: Env) -> None:
        """Raises unless the environment can be led by a mouse.

        Raises:
            ConfigError: it has no `action_at_pixel`, or draws no square pictures.
        """
        name = type(env.unwrapped).__name__
        if not callable(getattr(env.unwrapped, "action_at_pixel", None)):
            raise ConfigError(
                f"{name} has no action_at_pixel(xy, size), so a mouse cannot lead it; add that method, or collect with "
                f"its expert (teleop=false) or a policy (checkpoint=policy.pt)"
            )
        if env.render_mode != "rgb_array":
            raise ConfigError(f"{name} must draw with render_mode='rgb_array' to be shown, but has {env.render_mode!r}")
        env.reset(seed=0)
        _frame(env)

    def demonstrate(self, env: Env, seed: int, kept: int, wanted: int) -> Attempt | None:
        """Returns the episode that the person made, None after Q; see `Demonstrator`."""
        session = _Session(
            env,
            self._window,
            self._make_pace(actions_a_second(env) or _USUAL_HZ),
            f"kept {kept} of {wanted}",
            self._keys(),
        )
        recording: Recording | None = None
        while recording is None and not self._stopped:
            recording, command = session.play(seed)
            self._stopped = command == "quit"
        if recording is None:
            return None
        kept_now = self._keep == "all" or bool(recording.success)
        self._stopped = session.hold(recording, kept_now)
        return recording.episode(), recording.success

    def _keys(self) -> str:
        return f"R restart   N or Enter {'keep' if self._keep == 'all' else 'drop'} and next   Q or Esc quit"


@dataclass
class _Session:
    """One episode at the window, with as many restarts as it takes."""

    env: Env
    window: TeleopWindow
    pace: Pace
    count: str
    keys: str

    def play(self, seed: int) -> tuple[Recording | None, Command | None]:
        """Returns the episode when it is over; None, and the command, if it was thrown away."""
        recording = Recording(self.env, seed)
        place: Place | None = None
        following = False
        while not recording.ended:
            frame = _frame(self.env)
            resting = None if following else _resting_place(self.env, len(frame))
            self._show(_ringed(frame, resting), recording, "" if following else _invitation(resting))
            self.pace.wait()
            hand = self.window.poll()
            for command in hand.commands:
                if command != "next":
                    return None, command
                if len(recording):
                    recording.cut()
                    return recording, command
            place = place if hand.mouse is None else np.array(hand.mouse, np.float64)
            following = following or hand.clicked or _near(place, resting, len(frame))
            if following and place is not None:
                recording.step(self._action(place, len(frame)))
        return recording, None

    def hold(self, recording: Recording, kept: bool) -> bool:
        """Shows for a moment how it ended; returns whether the person wants to stop."""
        status = f"{'success' if recording.success else 'over'}: {'kept' if kept else 'not kept'}"
        frame = _frame(self.env)
        for _ in range(round(_HOLD_SECONDS / self.pace.period)):
            self._show(frame, recording, status)
            self.pace.wait()
            if "quit" in self.window.poll().commands:
                return True
        return False

    def _show(self, frame: Frame, recording: Recording, status: str) -> None:
        info = recording.info
        measure = f"coverage {info['coverage']:.2f}" if "coverage" in info else f"reward {recording.reward:.2f}"
        limit = getattr(self.env.spec, "max_episode_steps", None)
        left = len(recording) if limit is None else limit - len(recording)
        clock = f"{left * self.pace.period:.1f} s{'' if limit is None else ' left'}"
        self.window.show(frame, [f"{self.count}   {measure}   {clock}", status, self.keys])

    def _action(self, place: Place, size: int) -> Any:
        action = self.env.unwrapped.action_at_pixel(place, size)  # type: ignore[attr-defined]
        return np.asarray(action, dtype=self.env.action_space.dtype)


def _frame(env: Env) -> Frame:
    frame: Any = np.asarray(env.render())
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[0] != frame.shape[1] or frame.shape[2] != 3:
        raise ConfigError(
            f"{type(env.unwrapped).__name__} must draw square pictures (size, size, 3) uint8 for a mouse to lead it, "
            f"but drew {frame.shape} {frame.dtype}; choose its width and height in env.kwargs"
        )
    return np.asarray(frame, np.uint8)


def _resting_place(env: Env, size: int) -> Place | None:
    """Returns where the mouse asks for no motion, None where the environment does not say."""
    rest, pixels = (getattr(env.unwrapped, name, None) for name in ("resting_action", "action_pixels"))
    if not (callable(rest) and callable(pixels)):
        return None
    return np.asarray(pixels(np.asarray(rest())[None], size)[0], np.float64)


def _near(place: Place | None, resting: Place | None, size: int) -> bool:
    return place is not None and resting is not None and bool(np.linalg.norm(place - resting) <= _NEAR * size)


def _invitation(resting: Place | None) -> str:
    return "click to begin" if resting is None else "move the mouse into the ring, or click, to begin"


def _ringed(frame: Frame, place: Place | None) -> Frame:
    if place is None:
        return frame
    image = Image.fromarray(frame)
    radius = _NEAR * len(frame)
    ImageDraw.Draw(image).ellipse(
        [*(place - radius), *(place + radius)], outline=_RING, width=max(2, len(frame) // 170)
    )
    return np.asarray(image)
