"""A ROS 2 node that acts by a policy on dp-serve: topics in, actions out.

    python examples/ros2_node.py ws://127.0.0.1:8642

Observations come as `std_msgs/Float32MultiArray` on /observation/KEY, pictures as `sensor_msgs/Image` (rgb8) likewise,
and actions go to /action. `std_srvs/Trigger` on /reset begins an episode, on /release lets the robot act again after a
stop. Needs rclpy and the distribution in client/, no torch: the Python of a ROS installation will do.
"""

import sys
import time
from typing import Any

import numpy as np

from diffusion_policy_client import ObservationError, RemoteController

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
        self._controller, self._seen = controller, {}
        for key, field in controller.obs_spec.items():
            kind, read = (Image, self._picture) if field["type"] == "rgb" else (Float32MultiArray, self._numbers)
            self.create_subscription(kind, f"observation/{key}", lambda said, key=key, read=read: read(key, said), 1)
        self._actions = self.create_publisher(Float32MultiArray, "action", 1)
        self.create_service(Trigger, "reset", lambda _, answer: self._done(answer, controller.reset))
        self.create_service(Trigger, "release", lambda _, answer: self._done(answer, controller.release))
        self.create_timer(controller.step_s, self.tick)

    def _numbers(self, key: str, said: Any) -> None:
        self._seen[key] = np.asarray(said.data, np.float32).reshape(self._controller.obs_spec[key]["shape"])

    def _picture(self, key: str, said: Any) -> None:
        self._seen[key] = np.frombuffer(said.data, np.uint8).reshape(said.height, said.width, -1)

    def _done(self, answer: Any, act: Any) -> Any:
        act()
        self._seen.clear()  # an episode begins with what is seen in it
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
        if tick.stopped:
            self.get_logger().error(f"stopped: {tick.stopped}", throttle_duration_sec=1.0)
        self._actions.publish(Float32MultiArray(data=tick.action.ravel().tolist()))


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
