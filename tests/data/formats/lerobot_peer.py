"""What the real lerobot makes of a data set; run by its own interpreter, which has nothing of ours.

    python lerobot_peer.py make FOLDER            the data set that `frames` describes; FOLDER must not exist
    python lerobot_peer.py film FOLDER            likewise, its pictures as a video, h.264
    python lerobot_peer.py film-av1 FOLDER        likewise, by the codec that it uses unless told otherwise
    python lerobot_peer.py dump FOLDER OUT.npz    every frame, as its LeRobotDataset gives it
    python lerobot_peer.py train FOLDER           two steps of its DiffusionPolicy
    python lerobot_peer.py upgrade FOLDER         from v2.1 to v3.0, in place, by its own script

Each ends with a line of the versions. tests/fixtures/lerobot_v30.zip and lerobot_v30_video.zip hold what `make` and
`film` wrote with lerobot 0.4.4.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

LENGTHS = (5, 3, 7)
TASKS = ("push it", "pull it", "push it")
FPS = 10
SIZE = (12, 10)
FILM_SIZE = (48, 64)  # codecs want more


def frames(size: tuple[int, int] = SIZE) -> list[dict[str, np.ndarray]]:
    """Returns the episodes of the data set, by the names of its features."""
    rng, made = np.random.default_rng(7), []
    for i, steps in enumerate(LENGTHS):
        last = np.arange(steps) == steps - 1
        made.append(
            {
                "observation.images.front": film(rng, steps, size),
                "observation.state": rng.normal(size=(steps, 3)).astype(np.float32),
                "action": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
                "next.reward": rng.normal(size=(steps, 1)).astype(np.float32),
                "next.done": last[:, None],
                "next.success": (last & (i == 1))[:, None],
            }
        )
    return made


def film(rng: np.random.Generator, steps: int, size: tuple[int, int]) -> np.ndarray:
    """Returns pictures (steps, H, W, 3): noise where they are small, else a shade that tells the step."""
    if size == SIZE:
        return rng.integers(0, 256, (steps, *size, 3)).astype(np.uint8)
    shade = 20 + 30 * np.arange(steps)
    return np.broadcast_to(shade[:, None, None, None], (steps, *size, 3)).astype(np.uint8)


def make(root: str, *, codec: str | None = None) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    size = FILM_SIZE if codec else SIZE
    made = frames(size)
    features = {
        name: {"dtype": str(values.dtype), "shape": values.shape[1:], "names": None} for name, values in made[0].items()
    }
    features["action"]["names"] = ["x", "y"]
    names = ["height", "width", "channels"]
    features["observation.images.front"] = {"dtype": "video" if codec else "image", "shape": (*size, 3), "names": names}
    films = {"use_videos": codec is not None, "vcodec": codec or "h264"}
    data = LeRobotDataset.create("toy/toy", fps=FPS, features=features, root=root, **films)
    for episode, task in zip(made, TASKS, strict=True):
        for t in range(len(episode["action"])):
            data.add_frame({**{name: values[t] for name, values in episode.items()}, "task": task})
        data.save_episode()
    data.finalize()


def dump(root: str, out: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("toy/toy", root=root)
    rows = [data[i] for i in range(len(data))]
    found = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    np.savez(
        out,
        **found,
        **{f"stats/{name}/{kind}": values for name, each in data.meta.stats.items() for kind, values in each.items()},
        fps=data.fps,
        num_episodes=data.num_episodes,
        names=str(data.meta.names),
        lengths=[row["length"] for row in data.meta.episodes],
    )


def train(root: str) -> None:
    import torch
    from lerobot.configs.types import FeatureType
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
    from lerobot.datasets.utils import dataset_to_policy_features
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors

    torch.manual_seed(0)
    meta = LeRobotDatasetMetadata("toy/toy", root=root)
    known = dataset_to_policy_features(meta.features)
    seen = {name: each for name, each in known.items() if each.type is not FeatureType.ACTION}
    config = DiffusionConfig(
        input_features={name: each for name, each in seen.items() if name in ("observation.state",) or "image" in name},
        output_features={"action": known["action"]},
        device="cpu",
        horizon=8,
        n_action_steps=4,
        crop_shape=None,
        down_dims=(16, 32),
        num_train_timesteps=10,
        pretrained_backbone_weights=None,
    )
    policy = DiffusionPolicy(config)
    before, _ = make_pre_post_processors(config, dataset_stats=meta.stats)
    times = {name: [i / meta.fps for i in config.observation_delta_indices] for name in config.input_features}
    times["action"] = [i / meta.fps for i in config.action_delta_indices]
    data = LeRobotDataset("toy/toy", root=root, delta_timestamps=times)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    for batch in list(torch.utils.data.DataLoader(data, batch_size=4))[:2]:
        loss, _ = policy.forward(before(batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
        print("loss", loss.item())


def upgrade(root: str) -> None:
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

    path = Path(root)
    convert_dataset(path.name, root=path.parent, push_to_hub=False)


def main() -> None:
    command, *rest = sys.argv[1:]
    commands = {"make": make, "dump": dump, "train": train, "upgrade": upgrade}
    commands |= {"film": partial(make, codec="h264"), "film-av1": partial(make, codec="libsvtav1")}
    commands[command](*rest)
    import datasets
    import lerobot
    import pyarrow

    print(f"lerobot {lerobot.__version__}, datasets {datasets.__version__}, pyarrow {pyarrow.__version__}")


if __name__ == "__main__":
    main()
