"""Agents of others as plain arrays in an npz: what acts while data for offline RL are made.

Two kinds, as reinforcement learning leaves them. "mlp_tanh" and "mlp_relu" (of PPO, TRPO, A2C) hold W0, b0, W1, b1,
... and, if the agent saw normalised observations, obs_mean, obs_var, eps and clip_obs. "squashed_gaussian_relu" (of
SAC, TQC) holds latent_pi.<i>.weight and .bias, mu.weight, mu.bias, log_std.weight, log_std.bias: tanh of its mean acts,
or of a sample (Haarnoja et al. 2018, appendix C).
"""

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from diffusion_policy.errors import ConfigError, DataError, MissingFileError
from diffusion_policy.rollout.actors import Act, noise_generator
from diffusion_policy.rollout.environments import Env

Vector = NDArray[np.float32]
Layer = tuple[NDArray[np.float32], Vector]
"""Weights (inputs, outputs) and bias (outputs,)."""

_MLPS: dict[str, Callable[[Vector], Vector]] = {"mlp_tanh": np.tanh, "mlp_relu": lambda h: np.maximum(h, 0.0)}
_SQUASHED = "squashed_gaussian_relu"
_LOG_STD = (-20.0, 2.0)  # limits that these agents were trained with
_EXPECTED = f"expected the arrays of an agent of kind {', '.join([*_MLPS, _SQUASHED])}"


class NumpyActor:
    """An agent that was trained elsewhere.

    Args:
        path: the npz.
        stochastic: samples the Gaussian that the agent was trained with instead of taking its mean; a chance of its
            own for each episode, told by the seed.

    Raises:
        MissingFileError: nothing is there.
        DataError: the file is damaged, or holds something else.
        ConfigError: `stochastic` of an agent without a Gaussian.
    """

    def __init__(self, path: str | Path, *, stochastic: bool = False) -> None:
        self.path = Path(path).expanduser()
        self.name = self.path.name
        content = _content(self.path)
        arrays = _arrays(content, self.path)
        self.details = {"sha256": hashlib.sha256(content).hexdigest(), "stochastic": stochastic}
        self._stochastic = stochastic
        self._kind = str(arrays.get("kind", ""))
        if self._kind == _SQUASHED:
            self._hidden = _layers(arrays, "latent_pi", ("latent_pi.{}.weight", "latent_pi.{}.bias"), self.path)
            self._heads = [_layer(arrays, f"{head}.weight", f"{head}.bias", self.path) for head in ("mu", "log_std")]
        elif self._kind in _MLPS:
            layers = _layers(arrays, "W", ("W{}", "b{}"), self.path)
            self._hidden, self._heads = layers[:-1], layers[-1:]
        else:
            raise DataError(f"{self.path}: {_EXPECTED}, but its kind is '{self._kind or 'not given'}'")
        if stochastic and self._kind != _SQUASHED:
            raise ConfigError(f"{self.path}: stochastic=true needs an agent with log_std, but got kind '{self._kind}'")
        _check_sizes([*self._hidden, self._heads[0]], self.path)
        for head in self._heads[1:]:
            _check_sizes([*self._hidden, head], self.path)
        self.obs_size, self.action_size = (self._hidden or self._heads)[0][0].shape[0], len(self._heads[0][1])
        self._normalized = _normalization(arrays, self.obs_size, self.path)

    def begin(self, env: Env, seed: int) -> Act:
        """Returns the agent for one episode.

        Raises:
            ConfigError: the environment shows or takes something else than the agent was made for.
        """
        space = self._check_fits(env)
        low, high = space.low, space.high
        generator = noise_generator(seed, "sample") if self._stochastic else None

        def squashed(obs: Any, info: Mapping[str, Any]) -> Any:
            h = self._features(obs)
            action = np.tanh(self._gaussian(h, generator))
            return (low + 0.5 * (action + 1.0) * (high - low)).astype(space.dtype)

        def clipped(obs: Any, info: Mapping[str, Any]) -> Any:
            weight, bias = self._heads[0]
            return np.clip(self._features(obs) @ weight + bias, low, high).astype(space.dtype)

        return squashed if self._kind == _SQUASHED else clipped

    def _features(self, obs: Any) -> Vector:
        h: Vector = self._normalized(np.asarray(obs).reshape(-1)).astype(np.float32)
        activation = _MLPS.get(self._kind, _MLPS["mlp_relu"])
        for weight, bias in self._hidden:
            h = activation(h @ weight + bias)
        return h

    def _gaussian(self, h: Vector, generator: np.random.Generator | None) -> Vector:
        """Returns the mean of the Gaussian, or a sample, before tanh."""
        (weight, bias), (spread, offset) = self._heads
        mean = h @ weight + bias
        if generator is None:
            return mean
        std = np.exp(np.clip(h @ spread + offset, *_LOG_STD))
        sample: Vector = mean + std * generator.standard_normal(mean.shape, np.float32)
        return sample

    def _check_fits(self, env: Env) -> spaces.Box:
        seen, space = env.observation_space, env.action_space
        if not isinstance(seen, spaces.Box) or not isinstance(space, spaces.Box):
            raise ConfigError(
                f"{self.path} acts on one vector with one vector, but {type(env.unwrapped).__name__} shows {seen} and "
                f"takes {space}; choose another environment (task=)"
            )
        if self._kind == _SQUASHED and not space.is_bounded():
            raise ConfigError(
                f"{self.path} fills the bounds of its actions, but {type(env.unwrapped).__name__} takes {space}; "
                f"choose another environment (task=), or bound the actions with a gymnasium wrapper"
            )
        sizes = int(np.prod(seen.shape)), int(np.prod(space.shape))
        if sizes != (self.obs_size, self.action_size):
            raise ConfigError(
                f"{self.path} was made for observations of {self.obs_size} numbers and actions of {self.action_size}, "
                f"but {type(env.unwrapped).__name__} has {sizes[0]} and {sizes[1]}; choose the agent's environment "
                f"(task=)"
            )
        return space


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"actor {path} does not exist; give the npz of an agent, or actor=random") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); give the npz of an agent") from error


def _arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an npz; nothing in it is executed."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib, struct and numpy have a dozen ways to say that bytes are wrong
        raise DataError(f"{path}: {_EXPECTED} in an npz, but it cannot be read ({error}); copy it again") from error
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{path}: expected finite numbers, but '{name}' holds NaN or infinity; copy it again")
    return arrays


def _layers(arrays: Mapping[str, Any], stem: str, names: tuple[str, str], path: Path) -> list[Layer]:
    """Returns the layers in their order: `stem` is followed by their numbers, which may have gaps (activations)."""
    found = (re.match(re.escape(stem) + r"\.?(\d+)", name) for name in arrays)
    numbers = sorted({int(match[1]) for match in found if match})
    if not numbers:
        raise DataError(f"{path}: {_EXPECTED}, but it has no {names[0].format(0)}; it has: {', '.join(arrays)}")
    return [_layer(arrays, names[0].format(i), names[1].format(i), path) for i in numbers]


def _layer(arrays: Mapping[str, Any], weight: str, bias: str, path: Path) -> Layer:
    for name, axes in ((weight, 2), (bias, 1)):
        if name not in arrays:
            raise DataError(f"{path}: {_EXPECTED}, but it has no {name}; it has: {', '.join(arrays)}")
        if arrays[name].ndim != axes or arrays[name].dtype.kind != "f":
            raise DataError(f"{path}: '{name}' must be {axes}-dimensional floats, but is {arrays[name].shape}")
    return np.ascontiguousarray(arrays[weight].T, np.float32), arrays[bias].astype(np.float32)


def _check_sizes(layers: list[Layer], path: Path) -> None:
    size = layers[0][0].shape[0]
    for i, (weight, bias) in enumerate(layers):
        if weight.shape != (size, len(bias)):
            raise DataError(
                f"{path}: layer {i} must turn {size} numbers into {len(bias)}, but its weights turn {weight.shape[0]} "
                f"into {weight.shape[1]}; the file is damaged"
            )
        size = len(bias)


def _normalization(arrays: Mapping[str, Any], size: int, path: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    if "obs_mean" not in arrays:
        return lambda obs: obs
    try:
        mean, var = (np.asarray(arrays[name], np.float64).reshape(size) for name in ("obs_mean", "obs_var"))
        eps, limit = (float(arrays[name]) for name in ("eps", "clip_obs"))
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: expected obs_mean and obs_var of {size} numbers, eps and clip_obs, but got: {error}"
        ) from error
    std = np.sqrt(var + eps)
    return lambda obs: np.clip((obs - mean) / std, -limit, limit)
