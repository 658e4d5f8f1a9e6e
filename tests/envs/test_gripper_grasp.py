"""The gripper holds by friction alone: what is lifted, shaken, dropped, and what cannot be lifted without."""

import numpy as np
import pytest

from diffusion_policy_envs.gl import mujoco
from diffusion_policy_envs.gripper.scene import CUBE_HALF, GripperScene
from diffusion_policy_envs.gripper.starts import start_state

STEPS = 10  # of the physics, in one of the control
GRASP = np.array([0.0, 0.0, CUBE_HALF])


def grasped(yaw: float = 0.0, offset: tuple[float, float] = (0.0, 0.0), friction: float | None = None) -> GripperScene:
    """Returns a table on which the fingers have closed on a cube for 0.5 s."""
    scene = GripperScene("pickplace.xml", ["cube"], ["target"])
    if friction is not None:
        scene.model.geom_friction[:] = friction
    state = start_state(np.random.default_rng(0), np.array([offset]), np.array([[0.1, 0.1]]))
    state[:3] = GRASP
    state[8:12] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
    scene.set_state(state)
    for _ in range(10):
        scene.step(np.array([*GRASP, 0.0]), STEPS)
    return scene


def lift(scene: GripperScene, height: float = 0.1) -> None:
    for z in np.linspace(CUBE_HALF, CUBE_HALF + height, 10):
        scene.step(np.array([0.0, 0.0, z, 0.0]), STEPS)
    for _ in range(10):
        scene.step(np.array([0.0, 0.0, CUBE_HALF + height, 0.0]), STEPS)


def in_hand(scene: GripperScene) -> np.ndarray:
    return scene.cube_position(0) - scene.gripper[:3]


@pytest.mark.parametrize("yaw", [-0.35, -0.2, 0.0, 0.1, 0.35])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.01, 0.0), (-0.008, 0.01)])
def test_closing_fingers_align_a_turned_cube_and_lift_it(yaw: float, offset: tuple[float, float]) -> None:
    scene = grasped(yaw, offset)
    assert scene.held(0)
    assert abs(scene.cube(0)[3]) < 0.15  # sin of 4 yaw, so 2 degrees: the pads lie flat
    lift(scene)
    assert scene.cube_position(0)[2] == pytest.approx(CUBE_HALF + 0.1, abs=0.005)


def test_shaken_cube_stays_between_the_fingers_until_they_open() -> None:
    scene = grasped(0.2)
    lift(scene)
    before = in_hand(scene)
    rng = np.random.default_rng(0)
    for _ in range(60):  # 9 s of targets that jump by centimetres, three times a second
        target = np.array([*rng.uniform(-0.1, 0.1, 2), CUBE_HALF + 0.1, 0.0])
        for _ in range(3):
            scene.step(target, STEPS)
            assert np.abs(in_hand(scene) - before).max() < 0.004
    assert np.abs(in_hand(scene) - before).max() < 0.003
    here = scene.gripper[:3]
    for _ in range(10):
        scene.step(np.array([*here, 1.0]), STEPS)
    assert scene.cube_position(0)[2] == pytest.approx(CUBE_HALF, abs=0.001)
    assert not scene.touched(0)


def test_held_cube_hardly_creeps() -> None:
    scene = grasped()
    lift(scene)
    before = in_hand(scene)
    for _ in range(200):  # 10 s
        scene.step(np.array([0.0, 0.0, CUBE_HALF + 0.1, 0.0]), STEPS)
    np.testing.assert_allclose(in_hand(scene), before, atol=5e-4)


def test_nothing_is_lifted_without_friction() -> None:
    """So nothing but contact holds a cube."""
    scene = grasped(friction=1e-5)
    assert scene.held(0)
    lift(scene)
    assert scene.cube_position(0)[2] < CUBE_HALF + 0.005


@pytest.mark.parametrize("xml", ["pickplace.xml", "stack.xml"])
def test_models_attach_nothing_to_anything(xml: str) -> None:
    scene = GripperScene(xml, [], [])
    assert scene.model.neq == 0  # no weld, no equality of any kind


def test_gripper_goes_where_it_is_told_and_carries_its_weight() -> None:
    scene = GripperScene("pickplace.xml", ["cube"], ["target"])
    scene.set_state(start_state(np.random.default_rng(0), np.array([[0.1, 0.1]]), np.zeros((1, 2))))
    target = np.array([-0.1, 0.05, 0.2, 0.3])
    for _ in range(40):
        scene.step(target, STEPS)
    np.testing.assert_allclose(scene.gripper, target, atol=1e-4)


def test_gripper_keeps_to_its_greatest_speed() -> None:
    scene = GripperScene("pickplace.xml", ["cube"], ["target"])
    scene.set_state(start_state(np.random.default_rng(0), np.array([[0.1, 0.1]]), np.zeros((1, 2))))
    scene.step(np.array([*scene.gripper[:2], 0.2, 1.0]), 200)
    for x in (-0.2, 0.2):
        for _ in range(20):
            scene.step(np.array([x, 0.0, 0.2, 1.0]), STEPS)
            assert abs(scene.data.qvel[0]) < 0.61


@pytest.mark.parametrize("face", [[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0.5**0.5, 0.5**0.5, 0, 0]])
def test_cube_looks_the_same_on_every_face_and_after_each_quarter_turn(face: list[float]) -> None:
    scene = GripperScene("pickplace.xml", ["cube"], ["target"])
    state = start_state(np.random.default_rng(0), np.zeros((1, 2)), np.zeros((1, 2)))
    for yaw in 0.3 + np.pi / 2 * np.arange(4):
        turned = np.empty(4)
        mujoco.mju_mulQuat(turned, np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]), np.array(face, float))
        state[8:12] = turned
        scene.set_state(state)
        np.testing.assert_allclose(scene.cube(0), [0, 0, CUBE_HALF, np.sin(1.2), np.cos(1.2)], atol=1e-6)
