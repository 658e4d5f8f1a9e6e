"""Steps a second, as records tell of them. Standard library only."""

from collections.abc import Mapping


def told_rate(provenance: object) -> float | None:
    """Returns the rows a second that a provenance tells of: of a converted data set, a recording, an environment."""
    if not isinstance(provenance, Mapping):
        return None
    kwargs = provenance.get("kwargs")
    for known in (provenance, kwargs if isinstance(kwargs, Mapping) else {}):
        if (rate := _positive(known.get("control_hz"))) is not None:
            return rate
    step_s = _positive(provenance.get("step_s"))
    return None if step_s is None else 1 / step_s


def _positive(value: object) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and value > 0 else None  # type: ignore[operator, arg-type]
