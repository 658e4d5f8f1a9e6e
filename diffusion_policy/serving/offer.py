"""What a server offers, and whether a client fits: protocol, observations and rate are agreed before anything is done.

Letters: Da the axes of one action.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.strategies import Strategy
from diffusion_policy.control.timed import TimedController
from diffusion_policy.policies.chunk import ChunkPolicy, FloatArray
from diffusion_policy.serving.protocol import PROTOCOL, ProtocolError, described, mapping, number, text
from diffusion_policy.settings import plain

PLANNING = ("auto", "asked")


class RefusedError(Exception):
    """A client and this server do not fit; the message names both sides."""


@dataclass(frozen=True, eq=False)
class Offer:
    """What a server offers to every client.

    Args:
        policy: what plans, shared by all.
        step_s: seconds from one action to the next.
        strategy: how plans follow each other.
        safety: rules for each client's observations and actions.
        safe_action: (*Da), see `TimedController`.
        about: plain values that clients are told: versions, the policy's digest.
    """

    policy: ChunkPolicy
    step_s: float
    strategy: Strategy
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    safe_action: FloatArray | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def controller(self) -> TimedController:
        """Returns a new client's controller."""
        return TimedController(
            self.policy,
            step_s=self.step_s,
            strategy=self.strategy,
            safe_action=self.safe_action,
            safety=self.safety,
        )

    def obs(self) -> dict[str, Any]:
        """Returns the observation schema as messages hold it."""
        return schema(self.policy.obs_spec)

    @property
    def observation_bytes(self) -> int:
        """Bytes of one observation's arrays, pictures as uint8 and numbers as float64 at most."""
        return sum(each.size * (1 if each.is_picture else 8) for each in self.policy.obs_spec.values())


def schema(obs_spec: ObsSpec) -> dict[str, Any]:
    """Returns an observation schema as messages hold it: {key: {type, shape, unit}}."""
    return {key: {"type": each.type, "shape": list(each.shape), "unit": each.unit} for key, each in obs_spec.items()}


def action_schema(spec: ActionSpec) -> dict[str, Any]:
    """Returns an action's schema as messages hold it."""
    return {
        "shape": list(spec.shape), "low": plain(spec.low), "high": plain(spec.high), "unit": spec.unit,
        "names": list(spec.names), "kind": spec.kind,
    }  # fmt: skip


def agree(offer: Offer, hello: Mapping[str, Any]) -> None:
    """Raises unless a client fits: the protocol first, since nothing else has a meaning without it.

    Raises:
        RefusedError: it does not.
        ProtocolError: the message is no hello.
    """
    if hello.get("type") != "hello":
        raise ProtocolError(f"expected hello as the first message, but got {hello.get('type')!r:.40}")
    client = client_name(hello)
    protocol = hello.get("protocol")
    if not isinstance(protocol, int) or protocol != PROTOCOL:  # an array has no truth value
        raise RefusedError(
            f"the client ({client}) speaks protocol {protocol!r:.20}, the server "
            f"({offer.about.get('server', 'unknown')}) {PROTOCOL}; install matching versions"
        )
    if text(hello, "planning") not in PLANNING:
        raise ProtocolError(f"hello.planning: expected {' or '.join(PLANNING)}, but got {hello.get('planning')!r:.40}")
    if hello.get("obs") is not None:
        _check_obs(offer.obs(), mapping(hello, "obs"))
    if hello.get("step_s") is not None and abs(number(hello, "step_s") - offer.step_s) > 1e-3 * offer.step_s:
        raise RefusedError(
            f"the client acts every {number(hello, 'step_s'):g} s, the server plans for every {offer.step_s:g} s; "
            f"start dp-serve with control_hz={1 / number(hello, 'step_s') if hello['step_s'] else 0:g}, or leave "
            f"step_s to the server"
        )


def client_name(hello: Mapping[str, Any]) -> str:
    """Returns what a client calls itself, in printable letters.

    Raises:
        ProtocolError: it is no text.
    """
    said = (text(hello, "client") or "unknown")[:80]
    return said if said.isprintable() else ascii(said)


def _check_obs(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for field_of in theirs.values():
        kind, shape = (field_of.get("type"), field_of.get("shape")) if isinstance(field_of, dict) else (None, None)
        sizes = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
        if not isinstance(kind, str) or not sizes:
            raise ProtocolError("hello.obs: expected {key: {type, shape}}, but got something else")
    unfit = [
        key
        for key, each in ours.items()
        if key not in theirs
        or (theirs[key].get("type"), list(theirs[key]["shape"])) != (each["type"], each["shape"])
    ]  # fmt: skip
    if unfit:
        raise RefusedError(
            f"observations do not fit in {', '.join(unfit)}: the server's policy reads {described(ours)}; the client "
            f"has {described(theirs)[:400] or 'none'}"
        )
