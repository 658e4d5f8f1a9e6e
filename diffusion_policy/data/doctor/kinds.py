"""All that can be found: what it does to training, and how to mend it. docs/doctor.md has the same as a table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What can be found.

    Args:
        title: for people.
        effect: what it does to training.
        mend: how to be rid of it; `{data}` stands for the data set, `{name}` for what was found, `{key}` for where.
        option: of dp-convert, where it mends without anybody's choice: such ones go into one command.
    """

    title: str
    effect: str
    mend: str
    option: str = ""


MENDING = "dp-convert {data} mended.zarr"
"""How a command that mends begins."""
_THIS = "--drop {name}"
_DROP = f"{MENDING} {_THIS}"

KINDS = {
    "not-finite": Kind("NaN or infinite numbers", "training stops: no loss can be computed", _DROP, _THIS),
    "same-episodes": Kind(
        "the same episode twice",
        "a split by episodes trains on its validation data",
        f"{MENDING} --drop duplicates",
        "--drop duplicates",
    ),
    "similar-episodes": Kind(
        "nearly the same episode twice",
        "validation looks better than it is, and these episodes count double",
        f"{MENDING} --drop duplicates, unless they were meant to be alike",
    ),
    "ends": Kind(
        "ends of episodes that contradict themselves",
        "a critic learns that nothing follows where something does",
        "write the flags, or meta/episode_ends, anew",
    ),
    "next-differs": Kind(
        "next observations that do not follow",
        "a critic learns transitions that never happened",
        "end the episodes there (meta/episode_ends), or leave the key out",
    ),
    "bounds": Kind(
        "actions outside the environment's bounds",
        "the policy learns actions that the environment clips: it does something else than was shown",
        "bring them into the environment's units, or clip them as it does: dp-convert SRC DST --clip KEY=LOW:HIGH",
    ),
    "altered": Kind(
        "episodes that are not what was written", "nobody knows what was trained on", "copy the data set again"
    ),
    "interrupted": Kind(
        "an append that was interrupted", "none: its steps are never read", "the next writer removes them"
    ),
    "constant": Kind(
        "dimensions that never change",
        "none: they are shifted to zero; a policy cannot use them",
        "leave them out of obs, e.g. source: 'state[0:2]', or find out why the sensor is silent",
    ),
    "duplicated": Kind(
        "dimensions that are the same",
        "little: what stands twice counts twice, and covariances are singular",
        "take one of them into obs or action (source:)",
    ),
    "outliers": Kind(
        "numbers far outside the usual range",
        "limits normalisation squeezes all others into a small part of [-1, 1]: precision is lost",
        _DROP + ", or normalization.obs=quantile for a heavy tail that is real",
    ),
    "idle": Kind(
        "idle starts and ends",
        "the policy learns that standing still is right, and stays where an episode begins",
        f"{MENDING} --trim",
        "--trim",
    ),
    "frozen": Kind(
        "sensors that freeze",
        "the policy is shown actions that fit another state than the one it sees",
        _DROP + ", and look for the cable or the driver",
        _THIS,
    ),
    "held": Kind(
        "streams that change only every k-th step",
        "the policy sees values up to k - 1 steps old, as it will when deployed the same way",
        f"none if the robot does the same; {MENDING} --resample HZ of the slowest stream otherwise",
    ),
    "time-order": Kind(
        "time stamps that do not increase", "rows are out of order: actions do not follow what was seen", _DROP, _THIS
    ),
    "gaps": Kind(
        "gaps between time stamps",
        "what lies between is missing: at these steps the world seems to jump",
        f"{MENDING} --resample HZ (straight lines across the gaps), or --drop gaps",
    ),
    "jitter": Kind(
        "uneven time steps",
        "speeds look different from what they were: a policy is always run evenly",
        f"{MENDING} --resample HZ",
    ),
    "rates": Kind(
        "episodes of different rates",
        "one step means different times: the same state asks for actions of different size",
        f"{MENDING} --resample HZ",
    ),
    "lag": Kind(
        "how far the state lags behind the action",
        "a lag longer than the executed chunk hides what the last chunk did; one of 0 or less says that actions and "
        "states are shifted against each other, or that the action is no command but the state itself",
        "shift the action against the observations when recording; raise obs_horizon and action_horizon for a real lag",
    ),
    "units": Kind(
        "units that may be mixed",
        "one scale for two units: the smaller one is lost, and the same state asks for different actions",
        "convert these episodes to the units of the others, or " + _DROP,
    ),
    "wraps": Kind(
        "angles that wrap around",
        "neighbouring states lie far apart for the network",
        "store cos and sin, or unwrap the angle (numpy.unwrap) where it is an action",
    ),
    "rotation-vectors": Kind(
        "rotation vectors that turn over",
        "at half a turn neighbouring rotations lie far apart for the network",
        "dp-convert {data} mended.zarr --rotation '{key}[A:B]=axis_angle->rotation_6d_rows', with the numbers above",
    ),
    "pixels": Kind(
        "pictures in other units",
        "dp-train refuses floats up to 1, and mixed ones would look black",
        'obs.{key}.source: "{key}*255" where white is 1; store uint8, 0-255',
    ),
    "quaternions": Kind(
        "quaternions that are none, or change their sign",
        "q and -q are the same rotation, but far apart for the network",
        "normalise them, and turn each by its sign to the one before",
    ),
    "short": Kind(
        "very short episodes",
        "dp-train refuses episodes shorter than its window (16 steps by default)",
        f"data.drop_short=true, or {MENDING} --drop short",
    ),
    "blank": Kind(
        "blank pictures", "the policy learns to act blindly there", _DROP + ", and look for the camera", _THIS
    ),
    "repeated-frames": Kind(
        "pictures that repeat while the robot moves",
        "the picture is older than the action that is learned from it",
        _DROP + ", and look for the camera",
        _THIS,
    ),
}
"""By name, all that `dp-inspect` can find."""
