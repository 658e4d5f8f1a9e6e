"""What dp-inspect prints: what a data set holds, where it comes from, what is wrong with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from diffusion_policy.data.doctor.findings import counted
from diffusion_policy.data.doctor.kinds import MENDING
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.survey import Survey

_LONG = 8  # items of a list that are shown
_DROP = "--drop "  # takes several reasons
_STYLES = {"problem": "red", "warning": "yellow", "note": ""}


def console() -> Console:
    """Returns where to print: long lines are left whole, for scripts and searches."""
    return Console(soft_wrap=True, highlight=False, markup=False)


def print_contents(buffer: ReplayBuffer, found: Survey) -> None:
    """Prints size, origin and a table of the keys."""
    out, steps = console(), found.lengths
    out.print(f"{buffer.location}: {counted(buffer.num_episodes, 'episode')}, {buffer.num_steps} steps")
    out.print(f"lengths  {steps.min()} shortest, {np.median(steps):g} median, {steps.max()} longest")
    out.print(f"digest   {found.digest}" + ("" if list(found.keys) == buffer.keys() else " (of these keys)"))
    for name, value in buffer.attrs.items():
        for line in attribute_lines(name, value):
            out.print(line)
    table = Table("key", "dtype", "shape", "min", "mean", "max")
    for key, each in found.keys.items():
        numbers = (f"{value:.5g}" for value in (each.low.min(), each.mean, each.high.max()))
        table.add_row(key, str(each.dtype), "x".join(map(str, each.shape)) or "1", *numbers)
    out.print(table)


def print_findings(data: str, found: Survey) -> None:
    """Prints what was found, the worst first, each with its effect and how to mend it.

    Args:
        data: the data set, as commands name it.
        found: by a survey.
    """
    out = console()
    for each in found.findings:
        out.print(f"{each.severity:<8} {each.what}", style=_STYLES[each.severity])
        if each.severity != "note":
            out.print(f"{'':<8} effect: {each.kind.effect}")
            out.print(f"{'':<8} mend: {each.mend(data)}")
    if command := _at_once(data, found):
        out.print(f"at once  {command}")
    if not found.problems:
        rest = f"; {counted(len(found.warnings), 'warning')}" if found.warnings else ""
        out.print(f"checks   increasing ends, finite numbers, distinct episodes, digests: no problem found{rest}")


def _at_once(data: str, found: Survey) -> str | None:
    """Returns the one command that trims and drops all that shall be; None where one finding says it all."""
    options = list(dict.fromkeys(each.option for each in found.findings if each.option))  # in their order, each once
    if len(options) < 2:
        return None
    drops = [option.removeprefix(_DROP) for option in options if option.startswith(_DROP)]
    others = [option for option in options if not option.startswith(_DROP)]
    return " ".join([MENDING.format(data=data), *others, _DROP + " ".join(drops)])


def print_returns(buffer: ReplayBuffer, env_id: str | None) -> None:
    """Prints what each part of the data set is worth, by its rewards."""
    from diffusion_policy.rollout.reference_scores import worth
    from diffusion_policy.rollout.worth import part_worths

    record = buffer.attrs.get("provenance")
    recorded = record.get("env_id") if isinstance(record, dict) else None
    for part in part_worths(buffer):
        said = worth(str(env_id or recorded or ""), part.mean_return, part.success_rate)
        print(f"return   {said}, mean of {part.name}")


def print_physics(buffer: ReplayBuffer, env_id: str | None) -> bool:
    """Prints how far the simulator is from the data; returns whether that is too far."""
    from diffusion_policy.rollout.physics import CLOSE, EXACT, check_physics

    report = check_physics(buffer, env_id)
    table = Table("physics", "std", "median error / std", "99th percentile")
    middle, most = np.median(report.errors, axis=0), np.percentile(report.errors, 99, axis=0)
    for row in zip(report.names, report.scale, middle, most, strict=True):
        table.add_row(row[0], *(f"{number:.3g}" for number in row[1:]))
    out = console()
    out.print(table)
    left_out = f"; {report.clipped} more left out, their velocities were clipped" if report.clipped else ""
    shares = f"{report.share_within(EXACT):.1%} exact (within {EXACT:g} std), {report.share_within(CLOSE):.1%} close"
    out.print(f"physics  {len(report.errors)} steps: {shares} ({CLOSE:g}){left_out}")
    record = buffer.attrs.get("provenance")
    if report.wrong and isinstance(record, dict) and "augmenter" in record:
        out.print("note     synthetic transitions: these are the model's errors; dp-augment report=true compares them")
        return False
    if report.wrong:
        out.print(
            "problem  the simulator does not do what the data say: noise, another environment or version, actions "
            "shifted or scaled",
            style="red",
        )
    return report.wrong


def attribute_lines(name: str, value: Any) -> list[str]:
    """Returns what is kept with the data, for people: nested values a line each, long lists cut.

    Args:
        name: of the attribute.
        value: plain.
    """
    if not isinstance(value, Mapping):
        return [f"{name:<8} {in_words(value)}"]
    width = max(map(len, value), default=0)
    lines = [name]
    for key, each in value.items():
        if each is None:  # not known, or of no meaning here
            continue
        if isinstance(each, list) and each and all(isinstance(item, Mapping) for item in each):
            lines += [f"  {key:<{width}}  {i}. {in_words(item)}" for i, item in enumerate(each, 1)]
        else:
            lines.append(f"  {key:<{width}}  {in_words(each)}")
    return lines


def in_words(value: Any) -> str:
    """Returns a plain value in a line: [0, 1, ..., 199] is "0 to 199"; entries of None are left out.

    Args:
        value: plain, nested or not.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_words(each)}" for key, each in value.items() if each is not None) or "none"
    if isinstance(value, list):
        whole = len(value) > 2 and all(type(each) is int for each in value)
        if whole and value == list(range(value[0], value[0] + len(value))):
            return f"{value[0]} to {value[-1]}"
        items = [f"[{in_words(each)}]" if isinstance(each, (list, Mapping)) else in_words(each) for each in value]
        return ", ".join([*items[:_LONG], f"... {len(value)} in all"] if len(value) > _LONG else items) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
