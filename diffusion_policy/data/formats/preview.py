"""What a conversion would do, for people: which array becomes which, what is lost and why."""

from collections.abc import Sequence

from diffusion_policy.data.formats.conversion import Conversion
from diffusion_policy.data.formats.reading import FORMATS, Column, shown
from diffusion_policy.data.formats.writing import TARGETS


def preview(conversion: Conversion) -> list[str]:
    """Returns the lines that `dp-convert --dry-run` prints; of the data, the first episode was read, no more."""
    content = conversion.content
    episodes = "" if content.num_episodes is None else f"{content.num_episodes} episodes, "
    rate = "rate not told" if content.control_hz is None else f"{content.control_hz:g} steps a second"
    columns = list(conversion.columns)
    known = {each.becomes for each in columns}
    made = [
        Column("(made)", "", (), key) for key in content.forms if key not in known
    ]  # by the reader: from other columns
    dropped = [(each.name, each.note) for each in columns if each.becomes is None]
    dropped += [(each.name, each.note) for each in conversion.placed if each.becomes is None]
    return [
        f"from     {FORMATS.get(conversion.source_format).what}: {conversion.source}; {episodes}"
        f"{content.num_steps} steps, {rate}",
        f"to       {TARGETS.get(conversion.target_format).what}: {conversion.out}",
        *_table([_row(each, conversion) for each in [*columns, *made] if each.becomes is not None]),
        *(f"dropped  {shown(name)}: {note or 'not needed'}" for name, note in dropped),
        "dry run: nothing was written",
    ]


def _row(column: Column, conversion: Conversion) -> Sequence[str]:
    """Returns the cells of a line: name, form, our key and form, the target's name and form, notes."""
    form = conversion.content.forms.get(column.becomes or "")
    placed = next((each for each in conversion.placed if each.name == column.becomes), None)
    key = f"-> {column.becomes}"
    there = "" if placed is None else f"-> {placed.becomes}" if placed.becomes else "-> (dropped)"
    notes = "; ".join(filter(None, (column.note, placed.note if placed and placed.becomes else "")))
    return (
        shown(column.name),
        f"{column.dtype} {_shape(column.shape)}" if column.dtype else "",
        key,
        "" if form is None else f"{form[1]} {_shape(form[0])}",
        there,
        f"# {notes}" if notes else "",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
