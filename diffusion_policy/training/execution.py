"""A loop carried through in a folder: resumed where it was killed, with progress, metrics, curves and checkpoints."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.errors import CheckpointError, DataError
from diffusion_policy.policies.data_file import read_tensors
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.training.checkpoint_hook import STATE_FORMAT, CheckpointHook, state_path
from diffusion_policy.training.data_identity import DataIdentity
from diffusion_policy.training.interrupt import Interrupt
from diffusion_policy.training.loop import Hook, TrainingLoop
from diffusion_policy.training.metrics import Board, MetricsLog
from diffusion_policy.training.reporting import ProgressHook


def restored(loop: TrainingLoop, out: Path, data: DataIdentity, anew: str) -> dict[str, Any] | None:
    """Puts a loop where its run was saved; returns the saved state, None where there is none.

    Args:
        loop: at step 0.
        out: the run's folder.
        data: what is there now to learn from.
        anew: what a person can do whose run cannot go on.

    Raises:
        CheckpointError: another version saved it.
        DataError: the data have changed.
    """
    state = state_path(out)
    if not state.is_file():
        return None
    saved = read_tensors(state, "training state")
    if saved.get("format") != STATE_FORMAT:
        raise CheckpointError(
            f"{state} has format {saved.get('format', 1)}, this version goes on from {STATE_FORMAT}; finish the run "
            f"with the version that began it, or {anew}"
        )
    changed = data.changed(saved, f"{out} was trained on it")
    if changed:
        raise DataError(f"{changed}; restore it, or {anew}")
    loop.load_state_dict(saved["loop"])
    loop.last_checkpoint = f"{state} (step {loop.grad_step})"
    return saved


def carry_out(
    loop: TrainingLoop,
    out: Path,
    checkpoint: Callable[[Sequence[Hook]], CheckpointHook],
    measures: Callable[[MetricsLog], Sequence[Hook]],
    *,
    saved: dict[str, Any] | None = None,
    boards: tuple[Board, ...] = (),
    title: str = "train",
    note: Callable[[Sequence[Hook]], str] = lambda _: "",
) -> bool:
    """Trains to the end, or until somebody interrupts; returns whether it is the end. The state is saved.

    Args:
        loop: at step 0, or `restored`.
        out: the run's folder.
        checkpoint: makes what saves, of the hooks whose memory belongs to the state.
        measures: makes what measures.
        saved: of `restored`.
        boards: live displays.
        title: of the progress bar.
        note: what to show beside the loss, of what measures; may be empty.
    """
    log = MetricsLog(out / "metrics.jsonl", resume_step=loop.grad_step, boards=boards)
    hooks = measures(log)
    if saved is not None:
        for hook, memory in zip(hooks, saved["hooks"], strict=True):
            hook.load_state_dict(memory)
    saving = checkpoint(hooks)
    try:
        with Interrupt(patient=loop.ranks.size > 1) as interrupt:
            with ProgressBar(title, loop.num_grad_steps) as bar:
                bar.start_at(loop.grad_step)
                finished = loop.run([*hooks, ProgressHook(bar, lambda: note(hooks)), saving], interrupt)
            interrupt.now_saving()
            saving.save(loop)
    finally:
        log.close()
    return finished
