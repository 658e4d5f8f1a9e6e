"""Section `data` of a configuration: which episodes a run trains on, and what an agent sees of their rewards."""

from dataclasses import dataclass
from typing import Literal

from diffusion_policy.data.outcomes import Ends
from diffusion_policy.data.residence import Residence
from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.symmetry import MirrorChoice

_OF_AGENTS = ("ends", "reward_shift", "reward_scale", "standardize_rewards")


@dataclass(frozen=True)
class DataConfig:
    """Which episodes a run trains on.

    Args:
        val_ratio: share of episodes held out for validation.
        episodes: at most this many training episodes, drawn by the seed; None for all.
        successful: only episodes that succeeded, by what the data set's `success` tells.
        drop_short: leave out episodes shorter than a window instead of refusing the data set.
        mirror: train on the mirror image of each episode too; "auto": where the environment has a mirror. An epoch
            is then twice as long.
        memory_limit: of the data: "auto" (half of the free memory), a size like "4GB", or bytes. Pictures beyond it
            are decoded once into a raw file in the user's cache folder and read from there.
        ends: for agents, what to do where a time limit seems to be stored as termination; see `outcomes.Ends`.
        standardize_rewards: for agents, rewards get mean 0 and deviation 1 over the training episodes first.
        reward_shift: for agents, added to every reward.
        reward_scale: for agents, what the shifted reward is multiplied by.
        synthetic: a data set of dp-augment that is mixed in: of transitions for agents, of windows for imitation;
            normalisers never see it, nor the mirror.
        synthetic_ratio: their share of each batch, exact but for rounding to whole rows.
        synthetic_from: "same" refuses those that were made of other transitions than these, "any" takes them.
    """

    val_ratio: float = 0.02
    episodes: int | None = None
    successful: bool = False
    drop_short: bool = False
    mirror: MirrorChoice = False
    memory_limit: int | str = "auto"
    ends: Ends = "refuse"
    standardize_rewards: bool = False
    reward_shift: float = 0.0
    reward_scale: float = 1.0
    synthetic: str | None = None
    synthetic_ratio: float = 0.5
    synthetic_from: Literal["same", "any"] = "same"

    def __post_init__(self) -> None:
        Residence(self.memory_limit)  # refuses what is no size
        if not 0 <= self.synthetic_ratio <= 1:
            raise ConfigError(f"data.synthetic_ratio must be in [0, 1], but got {self.synthetic_ratio}")
        if not 0 <= self.val_ratio < 1:
            raise ConfigError(f"data.val_ratio must be in [0, 1), but got {self.val_ratio}")

    def refuse_what_agents_read(self) -> None:
        """Raises ConfigError where a setting was changed that only agents read: without one, a mistake."""
        plain_data = DataConfig()
        changed = [name for name in _OF_AGENTS if getattr(self, name) != getattr(plain_data, name)]
        if changed:
            listed = ", ".join(f"data.{name}" for name in changed)
            raise ConfigError(
                f"{listed}: imitation looks at no rewards and no ends; name an agent (agent=diffusion_ql, ...), or "
                f"drop it"
            )
