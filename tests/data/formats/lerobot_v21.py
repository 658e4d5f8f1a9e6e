"""A LeRobot data set v2.1 built by hand, as lerobot 0.3 laid it out: every episode a file, tables as JSON lines."""

import json
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from diffusion_policy.data.formats.lerobot import stats
from diffusion_policy.data.formats.lerobot.frames import encoded
from tests.data.formats.lerobot_peer import FILM_SIZE, FPS, TASKS, frames

DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"


def filmed(root: Path, *, times: int = 1) -> Path:
    """Turns the pictures of such a data set into films.

    Args:
        root: what `build` wrote.
        times: that a film has each frame, at so many times the rate.
    """
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    info["features"]["observation.images.front"] |= {"dtype": "video", "shape": [*FILM_SIZE, 3]}
    path.write_text(json.dumps(info))
    for i, episode in enumerate(frames(FILM_SIZE)):
        values = {"episode_chunk": i // 2, "episode_index": i, "video_key": "observation.images.front"}
        film = root / info["video_path"].format(**values)
        film.parent.mkdir(parents=True, exist_ok=True)
        writer = imageio_ffmpeg.write_frames(str(film), FILM_SIZE[::-1], fps=times * FPS, macro_block_size=2)
        writer.send(None)
        for picture in np.repeat(episode["observation.images.front"], times, axis=0):
            writer.send(picture)
        writer.close()
    return root


def build(root: Path) -> Path:
    """Writes the data set that `lerobot_peer.frames` describes; two episodes a chunk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made, begin = frames(), 0
    (root / "meta").mkdir(parents=True)
    features = {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]), "names": None}
        for name, values in made[0].items()
    }
    features["observation.images.front"] |= {"dtype": "image", "names": ["height", "width", "channel"]}
    features["action"]["names"] = {"motors": ["x", "y"]}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    tables: dict[str, list[dict[str, Any]]] = {"episodes": [], "episodes_stats": [], "tasks": []}
    for i, (episode, text) in enumerate(zip(made, TASKS, strict=True)):
        t = np.arange(steps := len(episode["action"]))
        task = list(dict.fromkeys(TASKS)).index(text)
        columns = {name: values if values.shape[1] != 1 else values[:, 0] for name, values in episode.items()}
        columns |= {"timestamp": (t / FPS).astype(np.float32), "frame_index": t, "episode_index": 0 * t + i}
        columns |= {"index": begin + t, "task_index": 0 * t + task}
        pictures = columns.pop("observation.images.front")
        front = [{"bytes": encoded(picture), "path": f"frame_{j:06d}.png"} for j, picture in enumerate(pictures)]
        rows = {name: values.tolist() for name, values in columns.items()}
        types = [(name, pa.from_numpy_dtype(values.dtype)) for name, values in columns.items()]
        schema = [(name, pa.list_(kind) if columns[name].ndim == 2 else kind) for name, kind in types]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table(
            {"observation.images.front": front, **rows}, pa.schema([("observation.images.front", kind), *schema])
        )
        path = root / DATA.format(episode_chunk=i // 2, episode_index=i)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        told = {name: stats.of_numbers(values.reshape(steps, -1)) for name, values in columns.items()}
        told["observation.images.front"] = stats.of_pictures(pictures)
        plain = {name: {kind: values.tolist() for kind, values in each.items()} for name, each in told.items()}
        tables["episodes"].append({"episode_index": i, "tasks": [text], "length": steps})
        tables["episodes_stats"].append({"episode_index": i, "stats": plain})
        begin += steps
    tables["tasks"] = [{"task_index": i, "task": text} for i, text in enumerate(dict.fromkeys(TASKS))]
    for name, lines in tables.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = {
        "codebase_version": "v2.1",
        "robot_type": "toy",
        "total_episodes": len(made),
        "total_frames": begin,
        "total_tasks": 2,
        "total_videos": 0,
        "total_chunks": 2,
        "chunks_size": 2,
        "fps": FPS,
        "splits": {"train": f"0:{len(made)}"},
        "data_path": DATA,
        "video_path": None,
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))
    return root
