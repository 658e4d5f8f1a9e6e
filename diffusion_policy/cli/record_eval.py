"""dp-record-eval: trials on a real robot that a person judges."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_policy.cli.command import count, run_command
from diffusion_policy.cli.deployed import control_hz, deployed_policy, deployed_rules, deployed_strategy, safe_action
from diffusion_policy.errors import ConfigError
from diffusion_policy.paths import new_folder, results_in

if TYPE_CHECKING:
    from diffusion_policy.rollout.result import EvalResult


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("record_eval", _record_eval)


def _record_eval(config: dict[str, Any], _overrides: list[str]) -> int:
    from diffusion_policy.control.timed import TimedController
    from diffusion_policy.rollout.driver import make_robot
    from diffusion_policy.rollout.person import who_answers
    from diffusion_policy.rollout.provenance import policy_facts
    from diffusion_policy.rollout.trials import Trials, run_trials

    out, checkpoint = Path(str(config["out"])).expanduser(), Path(str(config["checkpoint"])).expanduser()
    if not config["resume"]:
        new_folder(out, ", or go on with resume=true")
    seconds = config["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ConfigError(f"seconds must be a positive number, but got {seconds!r}")
    policy = deployed_policy(config)
    controller = TimedController(
        policy,
        step_s=1 / control_hz(config, policy),
        strategy=deployed_strategy(config, policy),
        safe_action=safe_action(config, policy),
        safety=deployed_rules(config, policy),
    )
    about = {
        "robot": str(config["robot"]),
        "robot_kwargs": config["robot_kwargs"] or {},
        "policy": policy_facts(policy, checkpoint),
        "delay": count(config, "delay", 0),
    }
    trials = Trials(count(config, "trials"), float(seconds), count(config, "seed", 0), out, about)
    robot = make_robot(str(config["robot"]), config["robot_kwargs"] or {})
    last: list[EvalResult] = []

    def done(result: "EvalResult") -> None:
        last.append(result)
        result.to_json(out / "eval.json")
        result.to_csv(out / "episodes.csv")
        print(result.summary())

    with results_in(out):
        try:
            finished = run_trials(trials, controller, robot, who_answers(sys.stdin), done=done)
        except KeyboardInterrupt:
            print("interrupted; this trial does not count", file=sys.stderr)
            finished = False
    if last:
        print(f"results  {out / 'eval.json'}\nepisodes {out / 'episodes.csv'}\nrecorded {trials.recording}")
    if not finished:
        print("the judged trials stay; go on with the same command and resume=true", file=sys.stderr)
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(main())
