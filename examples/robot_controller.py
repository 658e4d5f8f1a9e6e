"""A policy on a robot by the clock.

    python examples/robot_controller.py policy.pt [SECONDS]

The stand-in below takes and gives what the policy's schema says; put your driver in its place. Needs torch and numpy.
"""

import sys
import time
from itertools import islice

import numpy as np

from diffusion_policy import Planner, SafetyConfig, TimedController
from diffusion_policy.control.pace import paced
from diffusion_policy.control.watchdog import Watchdog

CONTROL_HZ = 10.0  # as the demonstrations were recorded


class Robot:
    """A stand-in driver: its sensors show noise, its motors note what they are told."""

    def __init__(self, controller: TimedController) -> None:
        self._fields, self.told = controller.obs_spec, []

    def read(self) -> dict[str, np.ndarray]:
        """Returns what the sensors show now."""
        return {
            key: np.full(field.shape, 127, np.uint8) if field.is_picture else np.random.rand(*field.shape)
            for key, field in self._fields.items()
        }

    def send(self, action: np.ndarray) -> None:
        """Moves the motors."""
        self.told.append(action)

    def stop(self) -> None:
        """Brings the motors to rest; called from the watchdog's thread."""


def main(path: str, seconds: float) -> None:
    """Runs the policy in a file for some seconds."""
    rules = SafetyConfig(stale_s=0.3, on_starved="stop")  # a robot without observations or plans stands still
    controller = TimedController.load(path, step_s=1 / CONTROL_HZ, strategy="chunking", delay=1, safety=rules)
    robot = Robot(controller)
    controller.observe(robot.read(), time.monotonic())
    controller.plan(time.monotonic(), time.monotonic)  # the robot stands still until it knows what to do
    with Planner(controller) as planner, Watchdog(robot.stop, 0.5) as watchdog:  # for a loop that hangs
        for now in islice(paced(1 / CONTROL_HZ), int(seconds * CONTROL_HZ)):
            controller.observe(robot.read(), now)
            robot.send(controller.action_at(now))
            watchdog.feed()
            if planner.error is not None:
                raise planner.error
    print(f"{len(robot.told)} actions; {controller.counts}; {controller.guard.counts}")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5.0)
