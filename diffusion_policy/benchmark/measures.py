"""What a benchmark measures of an episode, and how a method's episodes become one figure with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffusion_policy.rollout.reference_scores import LABEL
from diffusion_policy.rollout.statistics import Estimate, bootstrap_mean, wilson_rate

MeasureName = Literal["success", "max_reward", "return", "normalized_return"]


@dataclass(frozen=True)
class Measure:
    """A figure of episodes.

    Args:
        name: the column that holds it, one value an episode.
        title: of tables.
        axis: of pictures.
        note: how to read a table of it.
        digits: behind the point.
        unit: whether it lies within 0 and 1.
    """

    name: MeasureName
    title: str
    axis: str
    note: str
    digits: int = 3
    unit: bool = True

    def estimate(self, values: Sequence[float]) -> Estimate:
        """Returns a rate, or a mean, with its interval."""
        return wilson_rate([bool(value) for value in values]) if self.name == "success" else bootstrap_mean(values)


_POOLED = "bootstrap interval over the episodes of all training seeds, in brackets each training seed."

MEASURES: dict[MeasureName, Measure] = {
    each.name: each
    for each in (
        Measure(
            "success",
            "Success rate",
            "success rate",
            "Wilson's 95 % interval over the episodes of all training seeds, as if they were independent: for these "
            "networks, and a little too narrow, since all see the same episodes; in brackets each training seed.",
        ),
        Measure(
            "max_reward",
            "Mean max reward",
            "mean max reward",
            "The best reward of each episode; bootstrap interval over episodes; in brackets each training seed.",
        ),
        Measure("return", "Mean return", "mean return", f"The sum of rewards; {_POOLED}", digits=0, unit=False),
        Measure(
            "normalized_return",
            f"Normalised return ({LABEL})",
            "normalised return",
            f"100 (return - random) / (expert - random) with the references of D4RL; no D4RL result; {_POOLED}",
            digits=1,
            unit=False,
        ),
    )
}
