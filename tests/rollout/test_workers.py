"""Worker processes change nothing but the time: not the numbers, not what is refused, not the pictures."""

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.errors import ConfigError, EnvironmentIdError, ObservationError, RenderError
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.evaluate import evaluate
from diffusion_policy.rollout.workers import WorkerSlots
from tests.rollout.evaluations import run
from tests.rollout.toys import ToyPolicy


@pytest.mark.parametrize(("num_envs", "workers"), [(1, 1), (4, 2), (16, 3)])
def test_workers_episodes_and_policy_calls_are_those_of_one_process(num_envs, workers):
    here, there = ToyPolicy(), ToyPolicy()
    alone = run(here, episodes=20, num_envs=num_envs, workers=0)
    spread = run(there, episodes=20, num_envs=num_envs, workers=workers)
    assert spread.per_episode == alone.per_episode == run(episodes=20, num_envs=3, workers=0).per_episode
    assert there.batches == here.batches  # all predictions of a round in one call
    assert multiprocessing.active_children() == []


def test_policy_predicts_full_batches_while_workers_are_busy_and_changes_nothing(monkeypatch):
    held = []

    class Held(WorkerSlots):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            held.append(self)

    class Watching(ToyPolicy):
        def predict(self, obs, noise):
            busy.append(bool(held[-1].busy))
            filled.append(len(np.unique(noise, axis=0)))
            return super().predict(obs, noise)

    busy, filled = [], []
    monkeypatch.setattr("diffusion_policy.rollout.evaluate.WorkerSlots", Held)
    spread = run(Watching(), episodes=40, num_envs=8, workers=2, batch_size=4)
    assert spread.per_episode == run(episodes=40, num_envs=1, workers=0, batch_size=4).per_episode
    assert sum(busy) > len(busy) / 3
    assert {rows for rows, meanwhile in zip(filled, busy, strict=True) if meanwhile} == {4}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (EnvironmentIdError, {"env_id": "toys/Choas-v0"}),
        (EnvironmentIdError, {"env_kwargs": {"lenght": 3}}),
        (ObservationError, {"policy": ToyPolicy("velocity")}),
        (RenderError, {"film": VideoGrid(), "env_kwargs": {"render_mode": None}}),
    ],
)
def test_refusals_are_the_same_in_workers(kind, settings):
    messages = []
    for workers in (0, 1):
        with pytest.raises(kind) as caught:
            run(workers=workers, num_envs=1, **settings)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_plugins_are_imported_by_workers_and_a_missing_one_is_named():
    with pytest.raises(ConfigError, match="plugins: cannot import no_such_module"):
        evaluate(
            RecedingHorizonController(ToyPolicy()), "toys/Chaos-v0", episodes=1, seed=0, workers=1, progress=False,
            plugins=["no_such_module"],
        )  # fmt: skip


def test_environment_arguments_that_cannot_be_sent_are_refused():
    with pytest.raises(ConfigError, match=r"env_kwargs must be values that can be sent.*use workers=0"):
        run(env_kwargs={"says": lambda: None})


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_of_another_renderer_are_refused_if_the_policy_reads_them(workers):
    policy = ToyPolicy("image", (8, 8, 3))
    policy.obs_spec = {"image": ObsField("rgb", (8, 8, 3))}
    policy.info = SimpleNamespace(env={"renderer": "mujoco"})
    settings = {"env_kwargs": {"obs_keys": ("image",)}, "episodes": 1, "workers": workers}
    with pytest.raises(ObservationError, match=r"pictures by 'mujoco', but this environment draws with 'toy'; expec"):
        run(policy, **settings)
    policy.info = SimpleNamespace(env={"renderer": "toy"})
    assert run(policy, **settings).episodes == 1


@pytest.mark.parametrize("env", [{}, {"renderer": None}, None])
def test_renderer_that_nobody_recorded_or_looks_at_is_no_matter(env):
    policy = ToyPolicy("image", (8, 8, 3))
    policy.obs_spec = {"image": ObsField("rgb", (8, 8, 3))}
    policy.info = SimpleNamespace(env=env)
    assert run(policy, env_kwargs={"obs_keys": ("image",)}, episodes=1, workers=0).episodes == 1
    blind = ToyPolicy()
    blind.info = SimpleNamespace(env={"renderer": "mujoco"})
    assert run(blind, episodes=1, workers=0).episodes == 1


@pytest.mark.slow
@pytest.mark.parametrize("renderer", ["draw2d", "mujoco"])
def test_pictures_drawn_in_workers_are_those_of_this_process(renderer):
    """Every pixel goes into the policy's actions, and these into contacts."""
    from diffusion_policy_envs import gl

    if renderer == "mujoco" and not gl.can_draw():
        pytest.skip("needs a GL that draws")
    seen = {"image": ObsField("rgb", (96, 96, 3)), "agent_pos": ObsField("low_dim", (2,))}

    class Looking(ToyPolicy):
        def predict(self, obs, noise):
            chunk = super().predict({"image": obs["image"] / np.float32(255)}, noise)
            return ActionChunk(256 * (1 + chunk.actions), 256 * (1 + chunk.prediction))

    def episodes(**settings):
        policy = Looking()
        policy.obs_spec, policy.action_spec = seen, ActionSpec((2,), low=0, high=512)
        kwargs = {"obs_keys": list(seen), "renderer": renderer}
        controller = RecedingHorizonController(policy)
        return evaluate(
            controller, "diffusion_policy_envs:PushT-v0", episodes=3, seed=0, env_kwargs=kwargs, progress=False,
            **settings,
        ).per_episode  # fmt: skip

    assert episodes(num_envs=3, workers=2) == episodes(num_envs=1, workers=0)
