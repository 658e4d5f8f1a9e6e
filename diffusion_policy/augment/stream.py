"""Synthetic transitions into a replay buffer, batch by batch: memory does not grow with their number.

Batch i is drawn with a seed of its own (`batch_seed`), and its rows lie from i * rows on. So a writer that was killed
finds in the store how far it got, draws the batch again in which it stopped, and ends with what an undisturbed one
would have made.

Each transition is an episode of one step: {<key>, next_<key>, action, reward, terminated, truncated}, and truncated
where it is not terminated. So any reader of transitions reads it as it is. Each window of demonstrations is one of one
step too, with all its observations and actions in it: {<key> (To, *shape), action (Tp, *shape)}.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusion_policy.augment.augmenter import ROWS, SEEDING, TransitionModel
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.store import staging_folder, storage_errors
from diffusion_policy.errors import ConfigError, OutputExistsError
from diffusion_policy.settings import difference

_OF_THE_SET = ("augmenter", "real", "device", "bf16", "seeding", "seed", "rows", "samples")
"""What is the same for all rows of a set, by its provenance."""


def stream(
    model: TransitionModel,
    out: str | Path,
    samples: int,
    *,
    seed: int,
    provenance: Mapping[str, Any],
    rows: int = ROWS,
    resume: bool = False,
    on_rows: Callable[[int], None] = lambda _: None,
) -> str:
    """Writes transitions until there are enough; returns the digest of all.

    Args:
        model: fitted.
        out: the zarr folder to make, or to go on with.
        samples: how many transitions.
        seed: of all batches.
        provenance: what to keep with the data; `seed`, `seeding`, `rows` and `samples` are added.
        rows: of a batch.
        resume: goes on with what is there, if it was begun with the same provenance.
        on_rows: called with the rows that are there, for a progress bar.

    Raises:
        OutputExistsError: `out` exists, and `resume` is not set; or somebody writes to it.
        ConfigError: a number is out of range, or what is there was begun otherwise.
    """
    if samples < 1 or rows < 1 or seed < 0:
        raise ConfigError(f"expected samples and rows >= 1 and seed >= 0, but got {samples}, {rows} and {seed}")
    record = {**provenance, "seed": seed, "seeding": SEEDING, "rows": rows, "samples": samples}
    with _opened(Path(out), record, resume) as buffer:
        while buffer.num_episodes < samples:
            batch, begun = divmod(buffer.num_episodes, rows)
            count = min(rows, samples - batch * rows)
            held = model.sample_batch(count, seed=seed, batch=batch).stored()
            buffer.add_episodes([{key: each[i : i + 1] for key, each in held.items()} for i in range(begun, count)])
            on_rows(buffer.num_episodes)
        return buffer.digest()


def _opened(out: Path, record: dict[str, Any], resume: bool) -> ReplayBuffer:
    if not out.exists():
        with staging_folder(out) as staging:  # it appears with its provenance: a kill leaves nothing that is half made
            ReplayBuffer.create(staging / "zarr", attrs={"provenance": record}).close()
            with storage_errors(str(out)):
                (staging / "zarr").rename(out)  # never over what another writer has made meanwhile
        resume = True
    if not resume:
        raise OutputExistsError(f"{out} exists; choose another out=, or resume=true to go on with it")
    buffer = ReplayBuffer.open(out, mode="a")
    before = buffer.attrs.get("provenance")
    told = before if isinstance(before, Mapping) else {}
    if "augmenter" not in told:
        buffer.close()
        raise ConfigError(f"{out} was not made by augmenting, so it cannot be resumed; choose another out=")
    if otherwise := _otherwise(told, record):
        buffer.close()
        raise ConfigError(f"{out} was begun with {otherwise}; resume with the same settings, or choose another out=")
    return buffer


def _otherwise(told: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Returns what of a set was begun otherwise, by name; empty where nothing was."""
    begun, now = ({name: each.get(name) for name in _OF_THE_SET} for each in (told, record))
    mine, theirs = dict(begun.pop("augmenter") or {}), dict(now.pop("augmenter") or {})
    if "digest" not in mine:  # earlier versions put it in the place of the network's sizes
        mine["digest"] = mine.pop("model", None)
        theirs.pop("model", None)
    digests = [{"the model of digest": str(each.pop("digest", None))[:12]} for each in (mine, theirs)]
    return (
        difference({"augmenter": mine}, {"augmenter": theirs})  # first: with these, the digest is another one, too
        or difference(begun, now)
        or difference(digests[0], digests[1])
    )
