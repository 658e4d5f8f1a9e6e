"""The examples run: the ROS 2 node against a stub of ROS, the notebook cell by cell."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from diffusion_policy.config import ObsField
from diffusion_policy_client import MismatchError, RemoteController
from tests.control.clocks import Telling
from tests.serving.running import PATIENCE_S, Running, offer

EXAMPLES = Path(__file__).parents[2] / "examples"


class Node:
    """As much of rclpy's as the example uses."""

    def __init__(self, name):
        self.subscriptions, self.services, self.published, self.logged = {}, {}, [], []

    def create_subscription(self, kind, topic, callback, depth):
        self.subscriptions[topic] = (kind, callback)

    def create_publisher(self, kind, topic, depth):
        return SimpleNamespace(publish=self.published.append)

    def create_service(self, kind, name, callback):
        self.services[name] = callback

    def create_timer(self, period_s, callback):
        self.period_s = period_s

    def get_logger(self):
        note = lambda text, **_: self.logged.append(text)  # noqa: E731
        return SimpleNamespace(warning=note, error=note, fatal=note)


@pytest.fixture
def example(monkeypatch) -> ModuleType:
    names = (
        "rclpy",
        "rclpy.node",
        "sensor_msgs",
        "sensor_msgs.msg",
        "std_msgs",
        "std_msgs.msg",
        "std_srvs",
        "std_srvs.srv",
    )
    stubs = {name: ModuleType(name) for name in names}
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, name, stub)
    stubs["rclpy.node"].Node = Node
    for place, kind in (
        ("sensor_msgs.msg", "Image"),
        ("std_msgs.msg", "Float32MultiArray"),
        ("std_srvs.srv", "Trigger"),
    ):
        setattr(stubs[place], kind, type(kind, (SimpleNamespace,), {}))
    return loaded()


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ros2_node", EXAMPLES / "ros2_node.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ros_node_observes_topics_and_publishes_actions(example):
    policy = Telling()
    policy.obs_spec = {"now": ObsField("low_dim", (1,)), "eye": ObsField("rgb", (2, 3, 3))}
    with (
        Running(offer(policy)) as running,
        RemoteController(running.url, patience_s=PATIENCE_S, prompt_s=None) as controller,
    ):
        node = example.PolicyNode(controller)
        assert node.period_s == controller.step_s
        node.tick()
        assert node.published == []
        assert "no action" in node.logged[0]

        def said():
            kind, hear = node.subscriptions["observation/now"]
            assert kind is example.Float32MultiArray
            hear(SimpleNamespace(data=[time.monotonic()]))
            kind, hear = node.subscriptions["observation/eye"]
            assert kind is example.Image
            hear(image())

        until = time.monotonic() + PATIENCE_S
        while not node.published:
            assert time.monotonic() < until
            said()
            node.tick()
        obs, _ = policy.asked[0]
        assert np.array_equal(obs["eye"][0, -1].ravel(), np.arange(18))
        assert len(node.published[0].data) == 1
        assert node.services["reset"](None, SimpleNamespace()).success
        said = controller.tick(time.monotonic())  # another episode, in which the robot stays where it is
        assert (said.plan_start_s, said.action.tolist()) == (None, list(node.published[-1].data))
        assert node.services["release"](None, SimpleNamespace()).success


def image(data=bytes(range(18)), height=2, width=3, encoding="rgb8", step=9):
    return SimpleNamespace(data=data, height=height, width=width, encoding=encoding, step=step)


def test_ros_node_takes_pictures_of_either_order_and_drops_what_it_cannot_read(example):
    policy = Telling()
    policy.obs_spec = {"now": ObsField("low_dim", (1,)), "eye": ObsField("rgb", (2, 3, 3))}
    with (
        Running(offer(policy)) as running,
        RemoteController(running.url, patience_s=PATIENCE_S, prompt_s=None) as controller,
    ):
        node = example.PolicyNode(controller)
        (_, now), (_, eye) = node.subscriptions["observation/now"], node.subscriptions["observation/eye"]
        pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
        eye(image())
        assert np.array_equal(node._seen["eye"], pixels)
        eye(image(encoding="bgr8"))
        assert np.array_equal(node._seen["eye"], pixels[..., ::-1])
        padded = np.pad(pixels.reshape(2, 9), ((0, 0), (0, 3)))
        eye(image(padded.tobytes(), step=12))
        assert np.array_equal(node._seen.pop("eye"), pixels)
        wrong = [
            image(encoding="mono8"), image(bytes(17)), image(bytes(24), step=9), image(bytes(12), step=6),
            image(bytes(36), height=4),
        ]  # fmt: skip
        for each in wrong:
            eye(each)
        now(SimpleNamespace(data=[1.0, 2.0]))
        assert node._seen == {}
        assert len(node.logged) == len(wrong) + 1
        assert "expected a picture of rgb8 or bgr8, but got 'mono8'" in node.logged[0]
        assert "/observation/now is dropped" in node.logged[-1]


def test_ros_node_ends_where_the_server_does_not_fit_and_a_service_says_what_failed(example, monkeypatch):
    with (
        Running(offer(Telling())) as running,
        RemoteController(running.url, patience_s=PATIENCE_S, prompt_s=None) as controller,
    ):
        node = example.PolicyNode(controller)

        def refuse(*_, **__):
            raise MismatchError("no such action")

        monkeypatch.setattr(controller, "tick", refuse)
        monkeypatch.setattr(controller, "reset", refuse)
        answer = node.services["reset"](None, SimpleNamespace())
        assert (answer.success, answer.message) == (False, "no such action")
        with pytest.raises(SystemExit):
            node.tick()
        assert node.logged == ["the node ends: no such action"]


def test_ros_node_without_ros_says_so():
    if importlib.util.find_spec("rclpy") is not None:
        pytest.skip("ROS is installed here")
    with pytest.raises(SystemExit, match="this needs ROS 2"):
        loaded()


def cells() -> list[str]:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    assert notebook["nbformat"] == 4
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_notebook_holds_code_and_nothing_that_it_put_out():
    for number, cell in enumerate(cells()):
        compile(cell, f"cell {number}", "exec")


@pytest.mark.slow
def test_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    first, *rest = cells()
    assert "steps, episodes, out" in first
    program = "\n\n".join(["steps, episodes, out = 20, 2, 'run'", *rest])
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert "2 episodes, max reward" in done.stdout
    assert "PlanCounts(accepted=" in done.stdout
