"""UMI's data sets (Chi et al. 2024): `dataset.zarr.zip`, our layout without actions, pictures in JPEG XL.

Of each gripper i: `robot{i}_eef_pos` (N, 3) m, `robot{i}_eef_rot_axis_angle` (N, 3) rad, `robot{i}_gripper_width` (N,
1) m, `robot{i}_demo_start_pose` and `robot{i}_demo_end_pose` (N, 6); of each camera `camera{i}_rgb` (N, H, W, 3).
Poses are absolute, of the tool, in the frame of the SLAM map. The files tell no rate; UMI's films run at 59.94 Hz.

What counts as action is a choice. UMI's sampler takes [eef_pos, eef_rot_axis_angle, gripper_width] of every gripper,
one after another, of the same step: the first of the predicted actions is where the tool is now (`--action same`).
Its controller can afford that, for it gives actions a time and drops those that are over. Who executes actions in
lock-step loses a step of every chunk so; `--action next` takes the pose of the step after, and the last one twice.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from diffusion_policy.data.formats.reading import FORMATS, Column, Episode, Format, Option, Reading, narrowed, stored
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError

ACTION = Option("action", "WHICH", "pose that is the action: of the same step (UMI's own choice, default), or the next")
_PARTS = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
_GRIPPER = re.compile(r"robot(\d+)_eef_pos")
_SAME, _NEXT = "same", "next"


def read_umi(source: str, *, action: str = _SAME) -> Reading:
    """Returns the demonstrations of a data set, with an action.

    Args:
        source: a .zarr.zip, or the folder that was packed.
        action: "same" or "next".

    Raises:
        MissingFileError: nothing is there.
        DataError: it is damaged, lacks something, or needs a codec that is not installed.
        ConfigError: no such action.
    """
    if action not in (_SAME, _NEXT):
        raise ConfigError(f"--action must be {_SAME} or {_NEXT}, but got '{action}'")
    with ReplayBuffer.open(source) as buffer:
        if not buffer.num_episodes:
            raise DataError(f"{source}: expected episodes, but there are none; get the data set again")
        keys = buffer.keys()
        parts = _action_parts(keys, source)
        columns = [
            Column(f"data/{key}", str(buffer.dtype(key)), buffer.shape(key), key, narrowed(buffer.dtype(key)))
            for key in keys
        ]
        size = sum(int(np.prod(buffer.shape(part))) for part in parts)
        note = f"of the {action} step" + ("; the last one twice" if action == _NEXT else "")
        columns.append(Column(" + ".join(parts), "float32", (size,), "action", note))
        facts = {"umi_action": action, "action_parts": parts}
        episodes = _episodes(source, parts, shift=action == _NEXT)
        return Reading(episodes, buffer.num_steps, facts, tuple(columns), buffer.num_episodes)


def _action_parts(keys: Sequence[str], source: str) -> list[str]:
    """Returns the keys that the action consists of, in UMI's order."""
    if "action" in keys:
        raise DataError(f"{source}: expected poses without actions, but it has 'action'; read it with --format zarr")
    grippers = sorted(int(found[1]) for key in keys if (found := _GRIPPER.fullmatch(key)))
    if not grippers:
        raise DataError(f"{source}: expected robot0_eef_pos, but it has: {', '.join(keys)}; is it a UMI data set?")
    parts = []
    for i in grippers:
        missing = [f"robot{i}_{part}" for part in _PARTS[:2] if f"robot{i}_{part}" not in keys]
        if missing:
            raise DataError(f"{source}: expected {missing[0]}, but it has: {', '.join(keys)}; get the data set again")
        parts += [f"robot{i}_{part}" for part in _PARTS if f"robot{i}_{part}" in keys]
    return parts


def _episodes(source: str, parts: Sequence[str], *, shift: bool) -> Iterator[Episode]:
    with ReplayBuffer.open(source) as buffer:
        for i, recorded in enumerate(buffer.episodes()):
            where = f"{source}: episode {i}"
            episode = {key: stored(values, key, where) for key, values in recorded.items()}
            poses = np.concatenate([episode[part].reshape(len(episode[part]), -1) for part in parts], axis=1)
            after = np.minimum(np.arange(len(poses)) + int(shift), len(poses) - 1)
            yield {**episode, "action": poses[after].astype(np.float32)}


def _recognizes(source: str) -> bool:
    path, described = Path(source), "data/robot0_eef_pos/.zarray"
    if path.is_dir():
        return (path / described).is_file() and not (path / "data/action").exists()
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return any(name.endswith(described) for name in names) and not any("data/action/" in name for name in names)


FORMATS.register("umi")(Format("UMI's data sets, zarr.zip", _recognizes, read_umi, (ACTION,)))
