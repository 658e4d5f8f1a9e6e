"""What an interrupted collection has, and how to go on with it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import DiffusionPolicyError


def kept_so_far(out: str | Path, wanted: str, words: Sequence[str], command: str = "dp-collect") -> str:
    """Returns how much stands in `out`, and the command that goes on.

    Args:
        out: the setting of that name; what becomes a .zip is collected in a folder beside it.
        wanted: what was asked for: "200 episodes", "50000 steps", or what is an episode each: "100 transitions".
        words: the command line, without the command.
        command: the command.
    """
    target = Path(out)
    folder = target.with_suffix("") if target.suffix == ".zip" else target
    try:
        with ReplayBuffer.open(folder) as buffer:
            kept = buffer.num_steps if wanted.endswith("steps") else buffer.num_episodes
    except DiffusionPolicyError:
        return "interrupted before the first step; nothing was written"
    return f"interrupted with {kept} of {wanted} kept in {folder}; go on with: {go_on(command, words)}"


def go_on(command: str, words: Sequence[str]) -> str:
    """Returns the command line that goes on with what one was asked for."""
    return shlex.join([command, *(word for word in words if not word.startswith("resume=")), "resume=true"])
