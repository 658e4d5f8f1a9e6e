"""What a diffusion model of transitions is worth, by itself and to an agent that learns from it, as Markdown."""

import json

from figures import RESULTS, interval, stored, table

from diffusion_policy.rollout.statistics import bootstrap_mean

_TOLD = ("terminal_precision", "terminal_recall")
_METHODS = {"sac1": "SAC, 1 update a step", "sac20": "SAC, 20 updates", "synther20": "SynthER, 20 updates"}
_SHOWN = (1000, 2000, 3000, 5000, 10000)


def synther() -> str:
    """Returns the table of synthetic transitions, by the model that drew them."""
    figures = stored("synther")
    real = figures["real"]
    titles = {
        "synther": "SynthER",
        "noise": "noise, as far from real rows",
        "vae": "autoencoder",
        "gaussian": "Gaussian",
    }
    rows = []
    for name, title in titles.items():
        each = figures["models"][name]
        rows.append(
            [
                title,
                f"{each['ks_mean']:.3f} ({each['ks_min']:.3f})",
                f"{each['correlation_mean']:.3f} ({each['correlation_min']:.3f})",
                f"{each['nearest']:.2f}",
                f"{100 * each['terminal_rate']:.2f}",
                *("none" if each[key] is None else f"{each[key]:.2f}" for key in _TOLD),
                f"{each['dynamics_median']:.3f}",
            ]
        )
    head = [
        "",
        "KS complement",
        "correlation",
        "nearest",
        "terminals, %",
        "precision",
        "recall",
        "error of the dynamics",
    ]
    rate = 100 * figures["models"]["synther"]["terminal_rate_real"]
    said = f"{real['transitions']:,} real rows, {rate:.2f} % of them terminal; their nearest neighbours"
    apart = f"are {real['nearest']:.2f} away; the simulator's own error is {figures['simulator_floor']:.0e}"
    return f"{table(head, rows)}\n\n({said} {apart}; commit {figures['commit'][:7]}.)"


def augment_step() -> str:
    """Returns how fast SynthER is, and how good, beside the same network written plainly, or that none ran yet."""
    names = [name for name in ("augment_step", "augment_step_1024") if (RESULTS / f"{name}.json").is_file()]
    if not names:
        return "Not run yet: `OMP_NUM_THREADS=1 python benchmarks/augment_step.py --width 512`."
    head, steps, samples = [""], ["a step of training, ms"], ["samples a second"]
    for name in names:
        figures = stored(name)
        plain, ours = figures["plain"], figures["ours"]
        head += [f"width {figures['width']}: plain", "ours", "times"]
        steps += [f"{plain['step_ms']:.1f}", f"{ours['step_ms']:.1f}", f"{plain['step_ms'] / ours['step_ms']:.1f}"]
        drawn = [each["samples_per_s"] for each in (plain, ours)]
        samples += [f"{drawn[0]:.0f}", f"{drawn[1]:.0f}", f"{drawn[1] / drawn[0]:.1f}"]
    text = table(head, [steps, samples])
    first = stored(names[0])
    told = {name: first[name]["diagnostics"] for name in ("plain", "ours") if "diagnostics" in first[name]}
    if told:
        rows = [[key.replace("_", " "), *(f"{each[key]:.2g}" for each in told.values())] for key in told["ours"]]
        text += f"\n\n{table(['as good', *told], rows)}"
    made = f"{first['hardware']['cpu']}, one thread; least of the rounds in turn; commit {first['commit'][:7]}"
    return f"{text}\n\n({made}.)"


def online() -> str:
    """Returns the table of soft actor-critic with and without synthetic rows, or that there is none yet."""
    if not (RESULTS / "online.json").is_file():
        return "Not run yet: `python benchmarks/online.py docs/online.png`."
    figures = stored("online")
    methods = figures["methods"]
    rows = []
    for name, title in _METHODS.items():
        each = methods[name]
        at = [each["env_steps"].index(step) for step in _SHOWN]
        means = [interval({"mean": each["mean"][i], "ci95": each["ci95"][i]}, 0) for i in at]
        rows.append([title, *means, f"{sum(each['cpu_minutes']) / len(each['cpu_minutes']):.0f}"])
    difference = ["SynthER less SAC, 20 updates, paired by seed"]
    with_rows, without = methods["synther20"], methods["sac20"]
    for step in _SHOWN:
        i, j = with_rows["env_steps"].index(step), without["env_steps"].index(step)
        pairs = zip(with_rows["by_seed"], without["by_seed"], strict=True)
        estimate = bootstrap_mean([one[i] - other[j] for one, other in pairs])
        difference.append(interval({"mean": estimate.mean, "ci95": estimate.ci95}, 0))
    said = f"{len(with_rows['seeds'])} seeds, 95 % bootstrap intervals over them"
    made = f"{figures['hardware']['cpu']}, one thread a run, commit {figures['commits'][0][:7]}"
    head = ["return after", *(f"{step:,}" for step in _SHOWN), "CPU minutes a seed"]
    return f"{table(head, [*rows, [*difference, '']])}\n\n({said}; {made}.)"


def few_by_seed() -> str:
    """Returns what SynthER adds to TD3+BC on few transitions by training seed, and the t interval over the seeds."""
    from scipy.stats import sem, t

    cells = RESULTS / "few_transitions" / "cells"
    seeds = sorted(int(each.stem.rpartition("-s")[2]) for each in cells.glob("*-synther-s*.json"))
    returns = {
        (method, seed): json.loads((cells / f"hopper_twentieth-{method}-s{seed}.json").read_text(encoding="utf-8"))[
            "evaluations"
        ]["last"]["normalized_return"]["mean"]
        for method in ("plain", "synther")
        for seed in seeds
    }
    leads = [returns["synther", seed] - returns["plain", seed] for seed in seeds]
    mean = sum(leads) / len(leads)
    low, high = t.interval(0.95, len(leads) - 1, mean, sem(leads))
    listed = ", ".join(f"{lead:+.1f}" for lead in leads)
    return (
        f"SynthER's lead by training seed: {listed}; over these seeds {mean:+.1f} [{low:+.0f}, {high:+.0f}] (95 %, t)."
    )
