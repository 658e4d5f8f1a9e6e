"""Writes stored figures of benchmarks into the documents, between markers, and draws docs/scaling.png and others.

    python benchmarks/readme.py

A test fails when a document says something else than benchmarks/results/.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapter_tables import adapters
from figures import RESULTS, ROOT, machine, stored, table
from robot_tables import closed_loop, delay, delay_short
from suite_tables import edp, finished, suite
from synthetic_tables import augment_step, few_by_seed, online, synther


def latency() -> str:
    """Returns the table of engines."""
    figures = stored("latency")
    sizes = figures["sizes"]
    names = list(next(iter(sizes.values()))["engines"])
    rows = []
    for name in names:
        row = [name]
        for size in sizes.values():
            each = size["engines"][name]
            faster, share = each.get("times_as_fast_as_lerobot"), each.get("share_of_roofline")
            row += [f"{each['ms']:.1f}", f"{faster['median']:.1f}" if faster else "1", f"{share:.0%}" if share else ""]
        rows.append(row)
    words = {"small": "64/128/256", "full": "256/512/1024"}
    head = ["milliseconds a chunk"]
    for size in sizes:
        head += [words.get(size, size), "times lerobot", "of roofline"]
    peer = next(iter(sizes.values()))["versions"].get("lerobot")
    return f"{table(head, rows)}\n\n({machine(figures)}; lerobot {peer}; median of rounds in turn.)"


def training() -> str:
    """Returns the table of training."""
    figures = stored("training")
    cases = figures["cases"]
    names = list(next(iter(cases.values()))["contestants"])
    rows = []
    for name in names:
        row = [name]
        for case in cases.values():
            each = case["contestants"][name]
            ratio = each.get("times as fast as lerobot")
            row += [f"{each['samples_per_second']:.0f}", f"{ratio['median']:.1f}" if ratio else ""]
        rows.append(row)
    head = ["samples a second"]
    for name in cases:
        head += [name, "times lerobot"]
    return f"{table(head, rows)}\n\n({machine(figures)}; median of rounds in turn.)"


def precision() -> str:
    """Returns what bfloat16 costs in success, in sentences."""
    said = []
    for name in ("precision", "precision_800"):
        figures = stored(name)
        for engine, each in figures["engines"].items():
            if "difference_of_max_reward" in each:
                reward, success = each["difference_of_max_reward"], each["difference_of_success"]
                low, high = reward["ci95"]
                first = figures["seed"]
                said.append(
                    [
                        engine,
                        f"{first}-{first + figures['episodes'] - 1}",
                        f"{reward['mean']:+.3f} [{low:+.3f}, {high:+.3f}]",
                        f"{success['mean']:+.3f} [{success['ci95'][0]:+.3f}, {success['ci95'][1]:+.3f}]",
                    ]
                )
    return table(["against eager float32", "seeds", "max reward", "success"], said)


def scaling() -> str:
    """Returns docs/scaling.md."""
    figures = stored("scaling")
    cases, parts = figures["cases"], []
    titles = {
        "batch": "windows a step",
        "width": "down_dims",
        "pred_horizon": "pred_horizon",
        "cameras": "cameras (96x96, cnn_small)",
    }
    for case, title in titles.items():
        rows = [
            [label, f"{each['ms']:.0f}", f"{each['samples_per_second']:.0f}", f"{each['parameters'] / 1e6:.1f}"]
            for label, each in cases[case].items()
        ]
        parts.append(table([title, "ms a step", "samples/s", "million parameters"], rows))
    memory = [
        [name, f"{each['resident_mb']:.0f}", f"{each['as_copied_windows_mb']:.0f}"]
        for name, each in cases["memory_per_100000_steps"].items()
    ]
    one, *others = cases["processes"].items()
    several = "; ".join(f"{name} processes of one thread: {rate:.0f} ({rate / one[1]:.2f})" for name, rate in others)
    text = (Path(__file__).parent / "scaling.md.in").read_text(encoding="utf-8")
    return text.format(
        machine=machine(figures),
        **dict(zip(titles, parts, strict=True)),
        memory=table(["100,000 steps of", "MB in memory", "MB if windows were copied"], memory),
        processes=f"one process of {figures['threads']} threads: {one[1]:.0f} samples/s; {several}",
    )


def documents() -> list[Path]:
    """Returns the documents that have places for figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def parts() -> dict[str, Callable[[], str]]:
    """Returns what makes the text of each place, by name."""
    made: dict[str, Callable[[], str]] = {"latency": latency, "training": training, "precision": precision, "edp": edp}
    made |= {"synther": synther, "online": online, "few_by_seed": few_by_seed, "closed_loop": closed_loop}
    made |= {"augment_step": augment_step, "delay_short": partial(delay_short, RESULTS / "delay")}
    made["adapters"] = adapters
    for name in ("quick", "demonstrations", "offline", "mixed_pusht", "few_transitions", "augmented"):
        made[name] = partial(suite, name)
    for name in ("quick", "offline"):
        made[f"{name}_short"] = partial(suite, name, short=True)
    for rate in ("10hz", "50hz"):
        made[f"delay_{rate}"] = partial(delay, RESULTS / "delay" / f"{rate}.json")
    return made


def filled(text: str) -> str:
    """Returns a document with the figures between its markers."""
    for name, part in parts().items():
        begin, end = markers(name)
        if begin in text:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{part()}\n{end}{rest.split(end)[1]}"
    return text


def markers(name: str) -> tuple[str, str]:
    """Returns what stands before and after a place."""
    return f"<!-- {name}: by benchmarks/readme.py -->", f"<!-- /{name} -->"


def draw_demonstrations(path: Path) -> None:
    """Draws what demonstrations are worth."""
    from diffusion_policy.benchmark.plots import draw_curves

    plan, results = finished("demonstrations")
    if results.cells:
        draw_curves(results, list(plan.tasks), list(plan.methods), path, axis=str(plan.axis))


def draw(path: Path) -> None:
    """Draws how a step's time grows."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cases = stored("scaling")["cases"]
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2))
    shown = {
        "batch": "windows a step",
        "width": "million parameters",
        "pred_horizon": "pred_horizon",
        "cameras": "cameras",
    }
    for axis, (case, title) in zip(axes, shown.items(), strict=True):
        each = cases[case]
        x = [v["parameters"] / 1e6 for v in each.values()] if case == "width" else [float(label) for label in each]
        axis.plot(x, [v["ms"] for v in each.values()], "o-")
        axis.set_xlabel(title)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ms a gradient step")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    for document in documents():
        document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "scaling.md").write_text(scaling(), encoding="utf-8")
    draw(ROOT / "docs" / "scaling.png")
    draw_demonstrations(ROOT / "docs" / "demonstrations.png")


if __name__ == "__main__":
    main()
