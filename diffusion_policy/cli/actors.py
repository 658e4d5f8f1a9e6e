"""Who acts while dp-collect collects, as its settings say."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_policy.errors import ConfigError
from diffusion_policy.settings import build, build_part

if TYPE_CHECKING:
    from diffusion_policy.rollout.actors import Actor
    from diffusion_policy.rollout.attempts import Demonstrator


@dataclass(frozen=True)
class ActorSettings:
    """One actor.

    Args:
        actor: an agent's npz, "random" or "expert"; None for the policy, or the expert without one.
        checkpoint: a policy.pt.
        noise: standard deviation of Gaussian noise on the actions, in their units.
        stochastic: of an npz: samples its Gaussian.
    """

    actor: str | None = None
    checkpoint: str | None = None
    noise: float = 0.0
    stochastic: bool = False

    def __post_init__(self) -> None:
        if self.actor and self.checkpoint:
            raise ConfigError(f"actor= and checkpoint= exclude each other, but got {self.actor} and {self.checkpoint}")
        if self.stochastic and not (self.actor or "").endswith(".npz"):
            raise ConfigError(
                f"stochastic=true samples an agent's npz, but got {self.actor or 'no actor'}; leave it out"
            )


def make_actors(config: Mapping[str, Any], held: ExitStack) -> "Actor | Demonstrator | list[Actor]":
    """Returns who acts; `held` closes what was opened for it.

    Raises:
        ConfigError: the settings contradict each other.
    """
    one = build_part(ActorSettings, config, "actor")
    if config["teleop"]:
        if one != ActorSettings() or config["actors"]:
            other = (
                "checkpoint=" if one.checkpoint else "actors=" if config["actors"] else "actor=, noise=, stochastic="
            )
            raise ConfigError(f"teleop=true and {other} exclude each other: a person acts, or a policy; leave one out")
        from diffusion_policy.rollout.pygame_window import PygameWindow
        from diffusion_policy.rollout.teleop import Teleoperation

        keep: Any = "success" if config["keep"] == "auto" else config["keep"]
        return Teleoperation(held.enter_context(PygameWindow()), keep=keep)
    if not config["actors"]:
        return _actor(one, str(config["device"]))
    if one != ActorSettings():
        raise ConfigError("actors= lists all who act; put actor, checkpoint, noise and stochastic into its entries")
    entries = config["actors"]
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"actors: expected a list of settings, e.g. [{{actor: a.npz}}, ...], but got {entries!r}")
    parts = [build(ActorSettings, entry, f"actors[{i}]") for i, entry in enumerate(entries)]
    return [_actor(part, str(config["device"])) for part in parts]


def _actor(settings: ActorSettings, device: str) -> "Actor":
    from diffusion_policy.rollout.actors import NoisyActor

    actor = _noiseless(settings, device)
    return NoisyActor(actor, settings.noise) if settings.noise else actor


def _noiseless(settings: ActorSettings, device: str) -> "Actor":
    from diffusion_policy.rollout.actors import ExpertActor, PolicyActor, RandomActor

    if settings.checkpoint:
        from diffusion_policy.policies.controller import RecedingHorizonController
        from diffusion_policy.policies.device import pick_device

        return PolicyActor(RecedingHorizonController.load(settings.checkpoint, device=str(pick_device(device))))
    if settings.actor == "random":
        return RandomActor()
    if settings.actor in (None, "expert"):
        return ExpertActor()
    if not settings.actor.endswith(".npz"):
        policy = settings.actor.endswith((".pt", ".pt2", ".onnx"))
        remedy = f"give checkpoint={settings.actor}" if policy else "give a file that ends in .npz"
        raise ConfigError(f"actor: expected an agent's npz, random or expert, but got '{settings.actor}'; {remedy}")
    from diffusion_policy.rollout.numpy_actor import NumpyActor

    return NumpyActor(settings.actor, stochastic=settings.stochastic)
