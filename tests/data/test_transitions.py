"""Transitions: what came of a window, and no outcome that nobody saw."""

from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy import ReplayBuffer
from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.data.transitions import TransitionBatch, TransitionDataset
from diffusion_policy.errors import ConfigError, DataError

OBS = {"pos": ObsField("low_dim", (2,))}
ACTION = ActionSpec((1,))
LENGTHS = (9, 12, 7, 12)  # the second and the fourth are truncated
ENDED = (True, False, True, False)
SINGLE, CHUNK = Horizons(1, 1, 1), Horizons(2, 3, 6)


def episode(number: int, steps: int, ended: bool, **extra: Any) -> dict[str, Any]:
    pos = np.stack([np.full(steps, number), np.arange(steps)], 1).astype(np.float32)
    done = np.arange(steps) == steps - 1
    return {
        "pos": pos, "action": pos[:, 1:] / 10, "reward": (1 + pos[:, 1]).astype(np.float32),
        "terminated": done & ended, "truncated": done & (not ended), **extra,
    }  # fmt: skip


def made(**extra: Any) -> ReplayBuffer:
    buffer = ReplayBuffer.create()
    for number, (steps, ended) in enumerate(zip(LENGTHS, ENDED, strict=True)):
        buffer.add_episode(episode(number, steps, ended, **{key: make(number, steps) for key, make in extra.items()}))
    return buffer


def transitions(buffer: ReplayBuffer, horizons: Horizons, discount: float = 0.9, ends: Any = "refuse") -> Any:
    windows = WindowDataset.from_buffer(buffer, OBS, ACTION, horizons)
    outcomes = Outcomes.read(buffer, windows.index.episode_ids, OBS, ends)
    return TransitionDataset(windows, outcomes, discount=discount)


def every(data: TransitionDataset) -> TransitionBatch:
    return data.batch(torch.arange(len(data)))


def test_single_steps_are_the_usual_transitions() -> None:
    data = transitions(made(), SINGLE)
    assert (len(data), data.left_out) == (sum(LENGTHS) - 2, 2)  # the last steps of the truncated episodes
    batch = every(data)
    number, step = batch.obs["pos"][:, 0].T
    torch.testing.assert_close(batch.reward, 1 + step)
    torch.testing.assert_close(batch.action[:, 0, 0], step / 10)
    over = torch.tensor([steps - 1 if ended else -1 for steps, ended in zip(LENGTHS, ENDED, strict=True)])
    last = step == over[number.long()]
    torch.testing.assert_close(batch.discount, torch.where(last, 0.0, 0.9))
    torch.testing.assert_close(batch.next_obs["pos"][~last][:, 0], torch.stack([number, step + 1], 1)[~last])


def test_chunks_earn_the_discounted_sum_and_look_on_after_the_executed_actions() -> None:
    data = transitions(made(), CHUNK)
    batch = every(data)
    assert data.left_out == 2
    number, now = batch.obs["pos"][:, -1].T
    last = torch.tensor(LENGTHS)[number.long()] - 1
    earned = sum(0.9**j * (1 + j + now) * (now + j <= last) for j in range(3))  # nothing after the end
    torch.testing.assert_close(batch.reward, earned)
    bootstrapped = batch.discount > 0
    torch.testing.assert_close(batch.discount[bootstrapped].unique(), torch.tensor([0.9**3]))
    assert int((~bootstrapped).sum()) == 2 * 3  # the end cuts the last windows of each terminated episode short
    following = batch.next_obs["pos"][bootstrapped][:, :, 1]
    torch.testing.assert_close(following, torch.stack([now + 2, now + 3], 1)[bootstrapped])


@pytest.mark.parametrize("To", [1, 2])
@pytest.mark.parametrize("Ta", [1, 2, 4])
@pytest.mark.parametrize("beyond", [0, 1, 3, 9])
def test_every_step_whose_outcome_is_known_is_once_the_first_that_is_executed(To: int, Ta: int, beyond: int) -> None:
    """Whatever the prediction's length: 2/4/16 would otherwise never see an episode's end, 2/4/5 leave the data.

    A state that is no transition's first is a value that nothing teaches, from which those before it learn.
    """
    horizons = Horizons(To, Ta, To + Ta - 1 + beyond)
    lengths = [steps + 10 for steps in LENGTHS]
    data = transitions_of(lengths, ENDED, horizons)
    batch = every(data)
    now = batch.obs["pos"][:, -1]
    begun = [(int(number), int(step)) for number, step in now]
    expected = {
        (number, step)
        for number, (steps, ended) in enumerate(zip(lengths, ENDED, strict=True))
        for step in range(steps if ended else steps - Ta)
    }
    assert set(begun) == expected
    assert len(data) == len(expected)
    ends = {
        (number, step)
        for number, (steps, ended) in enumerate(zip(lengths, ENDED, strict=True))
        for step in range(steps - Ta, steps)
        if ended
    }
    assert {place for place, kept in zip(begun, batch.discount, strict=True) if kept == 0} == ends
    first, last = horizons.start, torch.tensor(lengths)[now[:, 0].long()] - 1
    executed = torch.minimum(now[:, 1:] + torch.arange(Ta), last[:, None])  # the last action is repeated
    torch.testing.assert_close(batch.action[:, first : first + Ta, 0], executed / 10)
    assert data.describe(torch.tensor([0])) == "episode 0, step 0"


def transitions_of(lengths: Any, ended: Any, horizons: Horizons) -> TransitionDataset:
    buffer = ReplayBuffer.create()
    for number, (steps, over) in enumerate(zip(lengths, ended, strict=True)):
        buffer.add_episode(episode(number, steps, over))
    return transitions(buffer, horizons)  # type: ignore[no-any-return]


def test_time_limit_among_real_ends_is_taken_as_told() -> None:
    buffer = ReplayBuffer.create()
    for number, steps in enumerate((10, 7, 10, 10)):
        buffer.add_episode(episode(number, steps, True))
    assert int((every(transitions(buffer, SINGLE)).discount == 0).sum()) == 4  # one real fall hides the limit
    mended = transitions(buffer, SINGLE, ends="truncated")
    assert mended.left_out == 3
    assert int((every(mended).discount == 0).sum()) == 1
    with pytest.raises(DataError, match=r"data\.ends=truncated, but no episode of the greatest length, 12 steps"):
        transitions(made(), SINGLE, ends="truncated")


def test_final_observations_are_found_under_the_names_of_the_data() -> None:
    named = {"place": ObsField("low_dim", (1,), source="state[1:2]")}
    buffer = ReplayBuffer.create()
    for number in range(2):
        whole = episode(number, 8 + number, False)
        state = whole.pop("pos")
        buffer.add_episode({**whole, "state": state, "next_state": state + 1})
    windows = WindowDataset.from_buffer(buffer, named, ACTION, SINGLE)
    data = TransitionDataset(windows, Outcomes.read(buffer, windows.index.episode_ids, named), discount=0.9)
    assert data.left_out == 0
    batch = every(data)
    torch.testing.assert_close(batch.next_obs["place"], batch.obs["place"] + 1)


def test_stored_next_observations_close_truncated_episodes() -> None:
    def following(number: int, steps: int) -> Any:
        return np.stack([np.full(steps, number), np.arange(1, steps + 1)], 1).astype(np.float32)

    for horizons in (SINGLE, CHUNK):
        data = transitions(made(next_pos=following), horizons)
        assert data.left_out == 0
        batch = every(data)
        kept = batch.discount > 0
        expected = batch.obs["pos"][:, -1, 1] + horizons.action_horizon
        torch.testing.assert_close(batch.next_obs["pos"][kept][:, -1, 1], expected[kept])
        torch.testing.assert_close(batch.next_obs["pos"][:, -1, 0], batch.obs["pos"][:, -1, 0])


def test_mirror_images_come_of_the_same_outcomes() -> None:
    buffer = made()

    def mirror(obs: Any, action: Any) -> Any:
        return {"pos": obs["pos"] * -1}, -action

    windows = WindowDataset.from_buffer(buffer, OBS, ACTION, SINGLE)
    outcomes = Outcomes.read(buffer, windows.index.episode_ids, OBS)
    both = every(TransitionDataset(windows.with_mirrored(mirror), outcomes, discount=0.9))
    half = len(both.reward) // 2
    assert torch.equal(both.reward[:half], both.reward[half:])
    assert torch.equal(both.discount[:half], both.discount[half:])
    assert torch.equal(both.next_obs["pos"][:half], -both.next_obs["pos"][half:])


def test_stored_next_observations_that_do_not_follow_are_refused() -> None:
    """Inside an episode the row after counts, at its end what is stored: where they differ, one of them is wrong."""

    def shifted(number: int, steps: int) -> np.ndarray:
        return np.stack([np.full(steps, number), np.arange(steps)], 1).astype(np.float32)  # now, not next

    with pytest.raises(DataError, match=r"next_pos is not what the following step holds at \d+ of \d+ steps"):
        transitions(made(next_pos=shifted), SINGLE)


def test_time_limit_stored_as_termination_is_refused_or_mended() -> None:
    buffer = ReplayBuffer.create()
    for number in range(4):
        buffer.add_episode(episode(number, 10, True))
    with pytest.raises(DataError, match=r"every terminated episode has 10 steps.*data\.ends=truncated"):
        transitions(buffer, SINGLE)
    assert transitions(buffer, SINGLE, ends="truncated").left_out == 4
    trusted = transitions(buffer, SINGLE, ends="terminated")
    assert (trusted.left_out, int((every(trusted).discount == 0).sum())) == (0, 4)


def test_bad_rewards_and_ends_are_named() -> None:
    def changed(**columns: Any) -> ReplayBuffer:
        buffer = ReplayBuffer.create()
        for number in range(2):
            whole = {**episode(number, 10, number == 0), **columns}
            buffer.add_episode({key: value for key, value in whole.items() if value is not None})
        return buffer

    with pytest.raises(DataError, match="learning from rewards needs data 'reward', but the data set has: action"):
        transitions(changed(reward=None), SINGLE)
    with pytest.raises(DataError, match="needs data 'terminated'"):
        transitions(changed(terminated=None), SINGLE)
    with pytest.raises(DataError, match="are terminated, but their episodes go on"):
        transitions(changed(terminated=np.arange(10) == 4), SINGLE)
    with pytest.raises(ConfigError, match=r"agent\.discount must be in \[0, 1\], but got 1\.5"):
        transitions(made(), SINGLE, discount=1.5)
    short = ReplayBuffer.create()
    short.add_episode(episode(0, 1, False))
    with pytest.raises(DataError, match="none has a known outcome"):
        transitions(short, SINGLE)
