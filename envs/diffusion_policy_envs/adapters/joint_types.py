"""Lets gymnasium-robotics run on MuJoCo 3.12 and newer."""

from types import ModuleType
from typing import Any


class _Plain:
    """An enum whose members are read as whole numbers."""

    def __init__(self, enum: Any) -> None:
        self._enum = enum

    def __getattr__(self, name: str) -> int:
        return int(getattr(self._enum, name))


class _MujocoWithPlainTypes:
    """MuJoCo, with the types of joints as whole numbers."""

    def __init__(self, mujoco: ModuleType) -> None:
        self._mujoco = mujoco
        self.mjtJoint = _Plain(mujoco.mjtJoint)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mujoco, name)


def read_joint_types_as_numbers(robotics_utils: ModuleType) -> None:
    """Makes `gymnasium_robotics.utils.mujoco_utils` compare types of joints as whole numbers; twice is as once.

    It asserts `joint_type in (mujoco.mjtJoint.mjJNT_HINGE, ...)`, where `joint_type` is a NumPy int32 of the model.
    Since MuJoCo 3.12 an enum's member does not equal such a number (`mjtJoint.mjJNT_HINGE == numpy.int32(3)` is False;
    the other way round it is True), so that Fetch, Hand and FrankaKitchen fail while they are made. Only the name
    `mujoco` in that module is replaced; versions that compare otherwise are not harmed.
    """
    if not isinstance(robotics_utils.mujoco, _MujocoWithPlainTypes):
        robotics_utils.mujoco = _MujocoWithPlainTypes(robotics_utils.mujoco)  # type: ignore[attr-defined]
