"""The robot's side of a policy server: the calls of a `TimedController`, answered over the network."""

from diffusion_policy_client.controller import RemoteController
from diffusion_policy_client.errors import (
    ClientError,
    MismatchError,
    ObservationError,
    PolicyError,
    ServerLostError,
)
from diffusion_policy_client.records import RemoteCounts, Tick

__version__ = "0.1.0"

__all__ = [
    "RemoteController",
    "RemoteCounts",
    "Tick",
    "ClientError",
    "MismatchError",
    "ObservationError",
    "PolicyError",
    "ServerLostError",
]
