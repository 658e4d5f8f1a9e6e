"""A ROS 2 node that acts by a policy on dp-serve: topics in, actions out.

    python examples/ros2_node.py ws://127.0.0.1:8642

Observations come as `std_msgs/Float32MultiArray` on /observation/KEY, pictures as `sensor_msgs/Image` (rgb8 or bgr8, of
the size that the policy reads) likewise, and actions go to /action. What is something else is logged and dropped.
`std_srvs/Trigger` on /reset begins an episode, on /release lets the robot act again after a stop. Needs rclpy and the
distribution in client/, no torch: the Python of a ROS installation will do.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_policy_client import ClientError, ObservationError, RemoteController

try:
    import rclpy
    from rclpy.node import Node
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float32MultiArray
    from std_srvs.srv import Trigger
except ModuleNotFoundError as missing:
    sys.exit(f"error: this needs ROS 2 ({missing}): source /opt/ros/*/setup.bash first")


class PolicyNode(Node):  # type: ignore[misc]  # rclpy has no types
    """Keeps the newest of each topic; at every tick observes them together, and sends the action."""

    def __init__(self, controller: RemoteController) -> None:
        super().__init__("diffusion_policy")
        self._controller, self._seen, self._stays = controller, {}, None
        for key, field in controller.obs_spec.items():
            kind, read = (Image, _picture) if field["type"] == "rgb" else (Float32MultiArray, _numbers)
            take = lambda said, key=key, read=read: self._take(key, read, said)  # noqa: E731
            self.create_subscription(kind, f"observation/{key}", take, 1)
        self._actions = self.create_publisher(Float32MultiArray, "action", 1)
        self.create_service(Trigger, "reset", lambda _, answer: self._done(answer, self._reset))
        self.create_service(Trigger, "release", lambda _, answer: self._done(answer, controller.release))
        self.create_timer(controller.step_s, self.tick)

    def _take(self, key: str, read: Callable[[Any, tuple[int, ...]], np.ndarray], said: Any) -> None:
        try:
            self._seen[key] = read(said, tuple(self._controller.obs_spec[key]["shape"]))
        except ValueError as error:
            self.get_logger().error(f"/observation/{key} is dropped: {error}", throttle_duration_sec=1.0)

    def _reset(self) -> None:
        self._controller.reset(at=self._stays)  # so that rates count from where the robot stands

    def _done(self, answer: Any, act: Callable[[], None]) -> Any:
        self._seen.clear()  # an episode begins with what is seen in it
        try:
            act()
        except ClientError as error:
            answer.success, answer.message = False, str(error)
        else:
            answer.success = True
        return answer

    def tick(self) -> None:
        """Sends the action for now, once there is one."""
        now = time.monotonic()
        try:
            if set(self._seen) == set(self._controller.obs_spec):
                self._controller.observe(dict(self._seen), now)
                self._seen.clear()  # what did not come anew is not observed anew: it grows old, and the rules see that
            tick = self._controller.tick(now)
        except ObservationError as error:
            self.get_logger().warning(f"no action: {error}", throttle_duration_sec=1.0)
            return
        except ClientError as error:  # the server and this node do not fit: that does not go away by itself
            self.get_logger().fatal(f"the node ends: {error}")
            raise SystemExit(1) from error
        if self._controller.action_spec["kind"] == "absolute":
            self._stays = tick.action
        if tick.stopped:
            self.get_logger().error(f"stopped: {tick.stopped}", throttle_duration_sec=1.0)
        self._actions.publish(Float32MultiArray(data=tick.action.ravel().tolist()))


def _numbers(said: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the numbers of a message, (*shape); ValueError: they are as many others."""
    return np.asarray(said.data, np.float32).reshape(shape)


def _picture(said: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the picture of a message, (H, W, 3) in the order red, green, blue; ValueError: it is another."""
    if said.encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"expected a picture of rgb8 or bgr8, but got {said.encoding!r}")
    if (said.height, said.width, 3) != shape or said.step < 3 * said.width:
        raise ValueError(
            f"expected {shape} pixels, but got {(said.height, said.width, 3)} in rows of {said.step} bytes"
        )
    rows = np.frombuffer(said.data, np.uint8).reshape(said.height, said.step)  # a row may end with bytes of no pixel
    picture = rows[:, : 3 * said.width].reshape(shape)
    return picture[..., ::-1] if said.encoding == "bgr8" else picture


def main(url: str) -> None:
    """Acts until it is interrupted."""
    rclpy.init()
    with RemoteController(url, on_lost="stop") as controller:
        node = PolicyNode(controller)
        try:
            rclpy.spin(node)
        except KeyboardInterrupt:
            pass
        finally:
            node.destroy_node()
            rclpy.try_shutdown()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8642")
