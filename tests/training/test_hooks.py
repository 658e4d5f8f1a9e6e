"""Best checkpoints, and Ctrl-C."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_policy.agents.objective import Imitation
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy.training.hooks import HookConfig
from diffusion_policy.training.interrupt import Interrupt
from diffusion_policy.training.metrics import MetricsLog, read_metrics
from diffusion_policy.training.rollout_hook import RolloutHook
from tests.policies.test_diffusion_policy import make_policy


class FakeLoop:
    """As much of a loop as a hook sees."""

    num_grad_steps = 100

    def __init__(self) -> None:
        self.grad_step = 0
        self.ema = self
        self.model = make_policy()
        self.objective = Imitation(self.model)
        self.model.info = CheckpointInfo(env={"id": "x:Y-v0"}, training={"seeds": [0]})

    def check_weights(self) -> None:
        pass


class FakeResult:
    success_rate = None

    def __init__(self, reward: float) -> None:
        self.max_reward = type("Estimate", (), {"mean": reward})
        self.episode_return = type("Estimate", (), {"mean": -reward})


def make_hook(folder: Path, rewards: list[float], keep: int) -> RolloutHook:
    results = iter(rewards)
    log = MetricsLog(folder / "metrics.jsonl")
    return RolloutHook(log, lambda _policy: FakeResult(next(results)), folder, every=10, keep=keep)  # type: ignore[arg-type, return-value]


def roll(hook: RolloutHook, loop: Any, times: int) -> None:
    for _ in range(times):
        loop.grad_step += 10
        hook.after_step(loop)


def kept(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("best_*.pt"))


def test_rollout_hook_keeps_the_best_whole_and_loadable(tmp_path: Path) -> None:
    hook, loop = make_hook(tmp_path, [0.5, 0.9, 0.7, 0.1], keep=2), FakeLoop()
    roll(hook, loop, 4)
    hook.after_save()
    assert kept(tmp_path) == ["best_step0000020_reward0.900.pt", "best_step0000030_reward0.700.pt"]
    info = DiffusionPolicy.load(tmp_path / kept(tmp_path)[0]).info
    assert (info.env, info.training, info.eval) == (
        {"id": "x:Y-v0"}, {"seeds": [0], "grad_steps": 20}, {"max_reward": 0.9}
    )  # fmt: skip
    assert [r["max_reward"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [0.5, 0.9, 0.7, 0.1]


def test_rollout_hook_keeps_the_best_by_return_where_told(tmp_path: Path) -> None:
    results = iter([0.5, 0.9, 0.7])  # the returns are minus these
    log = MetricsLog(tmp_path / "metrics.jsonl")
    hook = RolloutHook(log, lambda _policy: FakeResult(next(results)), tmp_path, 10, 1, "return")  # type: ignore[arg-type, return-value]
    roll(hook, FakeLoop(), 3)
    hook.after_save()
    assert kept(tmp_path) == ["best_step0000010_reward-0.500.pt"]
    assert hook.note == "at step 30: mean return -0.700"


def test_rollout_hook_removes_no_file_that_a_saved_state_still_lists(tmp_path: Path) -> None:
    hook, loop = make_hook(tmp_path, [0.5, 0.9], keep=1), FakeLoop()
    roll(hook, loop, 1)
    state = hook.state_dict()
    hook.after_save()
    roll(hook, loop, 1)  # evicts the first; then the run is killed
    assert len(kept(tmp_path)) == 2
    resumed = make_hook(tmp_path, [0.9], keep=1)
    resumed.load_state_dict(state)
    assert kept(tmp_path) == ["best_step0000010_reward0.500.pt"]  # of the future of the killed run nothing is left


def test_hook_config_refuses_an_interval_without_its_counts() -> None:
    with pytest.raises(ConfigError, match="val_windows must be at least 1"):
        HookConfig(val_windows=0)
    HookConfig(val_windows=0, val_every=0)


def test_interrupt_notes_the_first_raises_at_the_second_and_lets_none_tear_a_save() -> None:
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        interrupt.now_saving()
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)  # the usual handler is back


def test_best_policy_is_saved_with_finite_weights_only(tmp_path: Path) -> None:
    class Broken(FakeLoop):
        def check_weights(self) -> None:
            raise FloatingPointError

    hook = make_hook(tmp_path, [0.5], keep=1)
    with pytest.raises(FloatingPointError):
        roll(hook, Broken(), 1)
    assert kept(tmp_path) == []
    assert torch.isfinite(make_policy().action_normalizer.scale).all()
