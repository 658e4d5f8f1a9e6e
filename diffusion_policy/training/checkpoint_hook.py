"""What an exact resume needs, what is deployed, and the curves, saved between gradient steps."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from diffusion_policy.policies.data_file import save_atomically
from diffusion_policy.training.curves import draw_curves
from diffusion_policy.training.data_identity import DataIdentity
from diffusion_policy.training.hooks import StatelessHook, is_due
from diffusion_policy.training.loop import Hook, TrainingLoop

logger = logging.getLogger(__name__)

STATE_FORMAT = 2
"""Of state.pt: 2 has the optimiser's moments of convolutions channels last, as their weights are in memory."""

_CURVES_EVERY_S = 30.0  # a drawing costs half a second: no more often than a person looks


class CheckpointHook(StatelessHook):
    """Saves the resumable state, what is deployed (the EMA weights of this moment) and the curves.

    Whatever moment a run is killed at, state.pt is whole, and a run resumed from it makes all that is newer again.

    Args:
        out: the run's folder.
        every: interval in gradient steps.
        data: what it learns from; a run goes on with the same ones only.
        hooks: the other hooks, whose memory belongs to the state.
        deploy: writes what is deployed.
        unit: of actions, for the curves.
    """

    def __init__(
        self,
        out: Path,
        every: int,
        data: DataIdentity,
        hooks: Sequence[Hook],
        deploy: Callable[[TrainingLoop], None],
        unit: str = "",
    ) -> None:
        self._out, self._every, self._data, self._hooks = out, every, data, hooks
        self._deploy, self._unit = deploy, unit
        self._drawn = -_CURVES_EVERY_S
        self._saved_step = -1

    def after_step(self, loop: TrainingLoop) -> None:
        """Saves when due."""
        if is_due(loop, self._every):
            self.save(loop)

    def save(self, loop: TrainingLoop) -> None:
        """Saves now, unless this step is saved; the curves, which can be drawn again, come last and may fail."""
        if loop.grad_step == self._saved_step:
            return
        loop.check_weights()
        self._deploy(loop)
        state = state_path(self._out)
        hooks = [hook.state_dict() for hook in self._hooks]
        content = {"format": STATE_FORMAT, **self._data.state(), "loop": loop.state_dict()}
        save_atomically({**content, "hooks": hooks}, state)
        self._saved_step = loop.grad_step
        loop.last_checkpoint = f"{state} (step {loop.grad_step})"
        for hook in self._hooks:
            hook.after_save()
        if loop.grad_step == loop.num_grad_steps or time.monotonic() - self._drawn > _CURVES_EVERY_S:
            self._drawn = time.monotonic()
            try:
                draw_curves(self._out / "metrics.jsonl", self._out / "curves.png", self._unit)
            except OSError as error:
                logger.warning("no curves drawn: %s", error)


def state_path(out: Path) -> Path:
    """Returns where a run keeps what an exact resume needs."""
    return out / "checkpoints" / "state.pt"
