"""dp-eval: policy -> rollouts in its environment -> figures with intervals, and a film."""

import sys
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from diffusion_policy.cli.command import accept_bare_policy, count, run_command
from diffusion_policy.cli.eval_latency import evaluate_cases, is_asked, planned
from diffusion_policy.errors import ConfigError, DiffusionPolicyError, RenderError
from diffusion_policy.paths import local_path, new_folder, results_in

if TYPE_CHECKING:
    from diffusion_policy.config import ObsSpec
    from diffusion_policy.film.video import VideoGrid
    from diffusion_policy.policies.chunk import ChunkPolicy
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.policies.engines.engine_policy import EnginePolicy
    from diffusion_policy.rollout.result import EvalResult


def main() -> int:
    """Runs the command; returns the exit code."""
    accept_bare_policy()
    return run_command("eval", _evaluate)


def _evaluate(config: dict[str, Any], _overrides: list[str]) -> int:
    from diffusion_policy.rollout.evaluate import EvalResult, EvaluationInterrupted, evaluate

    checkpoint = Path(str(config["checkpoint"])).expanduser()
    episodes, num_envs = count(config, "episodes"), count(config, "num_envs")
    film_episodes = count(config, "film", smallest=0)
    out = _folder(config, checkpoint)
    controller = _controller(config, checkpoint)
    env_id, env_kwargs = _environment(config, cast("EnginePolicy", controller.policy).info.env, checkpoint)
    compared = planned(config, controller) if is_asked(config) else []
    film = None
    if not compared:
        film = _film(config, min(film_episodes, episodes), controller.policy, env_id, env_kwargs)
    settings: dict[str, Any] = {"episodes": episodes, "seed": count(config, "seed", smallest=0), "num_envs": num_envs}
    settings |= {"batch_size": count(config, "batch_size")}
    settings |= {"workers": _workers(config, controller.obs_spec), "plugins": config["plugins"] or ()}
    code = 0
    with results_in(out):
        if compared:
            return evaluate_cases(compared, controller, env_id, {**settings, "env_kwargs": env_kwargs}, out)
        try:
            result = evaluate(controller, env_id, env_kwargs=env_kwargs, film=film, **settings)
        except EvaluationInterrupted as interrupt:
            if interrupt.partial is None:
                print("interrupted before the first episode was over: nothing to save", file=sys.stderr)
                return 130
            result, code = interrupt.partial, 130
        except DiffusionPolicyError as error:
            if isinstance(error.partial, EvalResult):
                try:
                    _write(error.partial, None, out)
                except DiffusionPolicyError as second:  # which must not hide the first
                    print(f"not saved: {second}", file=sys.stderr)
            raise
        _write(result, film, out)
    return code


def _controller(config: dict[str, Any], checkpoint: Path) -> "RecedingHorizonController":
    """Returns the controller of a policy.pt, which samples as asked for, or of an exported policy as it is."""
    from diffusion_policy.policies.controller import ENGINES, RecedingHorizonController

    if checkpoint.suffix in set(ENGINES) - {".pt"}:
        if config["sampler"]:
            raise ConfigError(f"{checkpoint} holds its sampler; export again with other steps, or evaluate policy.pt")
        if config["num_candidates"] is not None:
            raise ConfigError(f"num_candidates: {checkpoint} is exported and selects nothing; leave it out")
        settings = {key: config[key] for key in ("device", "precision")}
        size = count(config, "batch_size")  # at which it is warmed up
        return RecedingHorizonController.load(checkpoint, batch_size=size, **settings)
    from diffusion_policy.policies.device import pick_device
    from diffusion_policy.policies.engines.eager import runnable
    from diffusion_policy.policies.library import load_policy

    policy = load_policy(checkpoint, pick_device(str(config["device"])))
    if config["sampler"]:
        policy = policy.with_sampler(**config["sampler"])
    if config["num_candidates"] is not None:
        policy = policy.with_candidates(count(config, "num_candidates"))
    controller = RecedingHorizonController(runnable(policy, config["precision"]))
    controller.path = checkpoint
    return controller


def _folder(config: dict[str, Any], checkpoint: Path) -> Path:
    """Returns the folder for the results: a new one, or the one that is gone on with."""
    if not config["resume"]:
        otherwise = ", or go on with resume=true" if is_asked(config) else ""
        return new_folder(config["out"] or _free_folder(checkpoint.parent), otherwise)
    if not is_asked(config):
        raise ConfigError("resume=true goes on with a comparison of delays (latency_steps=[...]); leave it out")
    if not config["out"]:
        raise ConfigError("resume=true: expected the folder to go on with, got nothing; give out=FOLDER")
    return local_path(config["out"])


def _free_folder(folder: Path) -> Path:
    """Returns eval/ in a folder, or eval-2/, ... if that holds results."""
    names = ("eval" if number == 1 else f"eval-{number}" for number in count_from(1))
    free = (folder / name for name in names if not (folder / name).exists() or not any((folder / name).iterdir()))
    return next(free)


def _film(
    config: dict[str, Any], episodes: int, policy: "ChunkPolicy", env_id: str, env_kwargs: dict[str, Any]
) -> "VideoGrid | None":
    from diffusion_policy.film.overlay import make_overlay
    from diffusion_policy.film.video import VideoGrid
    from diffusion_policy.rollout.environments import draws_frames, make_env

    if not episodes and config["overlay"]:
        raise ConfigError("overlay=true draws on a film, but film=0 leaves none; give film=9, or leave overlay out")
    if not episodes:
        return None
    if not draws_frames(env_id):
        print(f"no video: {env_id} does not offer render_mode rgb_array", file=sys.stderr)
        return None
    if not config["overlay"]:
        return VideoGrid(episodes)
    env = make_env(env_id, env_kwargs)
    try:
        return VideoGrid(episodes, tile=320, overlay=make_overlay(policy, env, env_id))
    finally:
        env.close()


def _write(result: "EvalResult", film: "VideoGrid | None", out: Path) -> None:
    result.to_json(out / "eval.json")
    result.to_csv(out / "episodes.csv")
    print(result.summary())
    print(f"speed    {result.speed_summary()}")
    print(f"results  {out / 'eval.json'}\nepisodes {out / 'episodes.csv'}")
    if film is not None:
        try:
            film.save(out / "rollouts.mp4")
            print(f"video    {out / 'rollouts.mp4'}")
        except RenderError as error:
            print(f"no video: {error}", file=sys.stderr)


def _workers(config: dict[str, Any], obs_spec: "ObsSpec") -> int:
    """Returns how many processes run environments: by itself, as many as cores where pictures are drawn."""
    from diffusion_policy.rollout.provenance import usable_cores

    if config["workers"] != "auto":
        return count(config, "workers", smallest=0)
    draws = any(field.is_picture for field in obs_spec.values())
    cores = usable_cores()
    return cores if draws and config["num_envs"] > 1 and cores > 1 else 0


def _environment(config: dict[str, Any], saved: Any, checkpoint: Path) -> tuple[str, dict[str, Any]]:
    given = config["env"] or {}
    env_id = given.get("id") or saved.get("id")
    if not env_id:
        raise ConfigError(f"{checkpoint} names no environment; give env.id=package:Name-v0")
    return str(env_id), {**(saved.get("kwargs") or {}), **(given.get("kwargs") or {})}


if __name__ == "__main__":
    sys.exit(main())
