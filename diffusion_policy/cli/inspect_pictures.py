"""What dp-inspect draws: plots, pictures and films of a data set."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.store import storage_errors
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError, RenderError
from diffusion_policy.rates import told_rate
from diffusion_policy.rollout.progress import ProgressBar

if TYPE_CHECKING:
    from diffusion_policy.film.demonstrations import DemonstrationFilm
    from diffusion_policy.film.picture import Frame
    from diffusion_policy.rollout.environments import Env

FILMED, PICTURED, MOMENTS = 9, 3, 5
"""Episodes in a film and in a picture unless asked for, pictures in a row."""
_SMALL = 160  # px of a moment in a report
_USUAL_FPS = 10.0  # where nothing tells how fast steps followed one another


@contextmanager
def drawing(buffer: ReplayBuffer, args: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """Yields what makes picture and film; refuses what cannot be made before minutes of reading, not after them."""
    for path in filter(None, (args.plot, args.picture, args.video, args.report)):
        if path.exists():
            raise OutputExistsError(f"{path} already exists; choose another file")
    if args.plot:
        buffer.shape("action")
    if not (args.picture or args.video):
        _refuse_lone_choices(args)
        yield lambda: None
        return
    from diffusion_policy.film.demonstrations import FILM_WIDTH, PICTURE_WIDTH, DemonstrationFilm, spread
    from diffusion_policy.rollout.recorded_env import find_env

    if args.fps is not None and not args.fps > 0:
        raise ConfigError(f"--fps must be above 0, but got {args.fps:g}")
    if args.picture and args.picture.suffix.lower() != ".png":
        raise ConfigError(f"--picture must name a .png, but got {args.picture}; --video makes films")
    for i in args.only or ():
        buffer.episode_slice(i)
    with ExitStack() as held:
        env = find_env(buffer, args.env)
        if env is not None:
            held.callback(env.close)
        jobs: list[Callable[[], None]] = []
        if args.picture:
            episodes = args.only or spread(buffer, PICTURED if args.episodes is None else args.episodes)
            jobs.append(partial(_picture, DemonstrationFilm(buffer, env, PICTURE_WIDTH), episodes, args.picture))
        if args.video:
            episodes = args.only or spread(buffer, FILMED if args.episodes is None else args.episodes)
            fps = args.fps or _rate(buffer, env)
            steps = sum(buffer.episode_slice(i).stop - buffer.episode_slice(i).start for i in episodes)
            jobs.append(partial(_film, DemonstrationFilm(buffer, env, FILM_WIDTH), episodes, args.video, fps, steps))

        def show() -> None:
            for job in jobs:
                job()

        yield show


def _refuse_lone_choices(args: argparse.Namespace) -> None:
    """Raises if somebody chose what is drawn, but nothing is."""
    for name in ("only", "episodes", "fps"):
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} is about a picture or film: give --picture FILE.png or --video FILE.mp4")


def _rate(buffer: ReplayBuffer, env: "Env | None") -> float:
    """Returns steps a second, so that a film is as fast as life where anything tells."""
    from diffusion_policy.rollout.env_facts import actions_a_second

    told = told_rate(buffer.attrs.get("provenance"))
    return told or (None if env is None else actions_a_second(env)) or _USUAL_FPS


def drawn_moments(buffer: ReplayBuffer, env_id: str | None) -> "Frame | None":
    """Returns the first, middle and last step of a few episodes as the environment draws them; None where none can."""
    from diffusion_policy.film.demonstrations import DemonstrationFilm, spread
    from diffusion_policy.rollout.recorded_env import find_env

    env = find_env(buffer, env_id)
    if env is None:
        return None
    try:
        return DemonstrationFilm(buffer, env, _SMALL).picture(spread(buffer, PICTURED), 3)
    except (DataError, RenderError):  # the report is about the data, not about pictures
        return None
    finally:
        env.close()


def _picture(shown: "DemonstrationFilm", episodes: Sequence[int], path: Path) -> None:
    from PIL import Image

    with ProgressBar("picture", len(episodes) * MOMENTS) as bar:
        image = Image.fromarray(shown.picture(episodes, MOMENTS, counter(bar)))
    with storage_errors(str(path), anew=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    print(f"picture  {path}")


def _film(shown: "DemonstrationFilm", episodes: Sequence[int], path: Path, fps: float, steps: int) -> None:
    from diffusion_policy.film.video import save_video

    with ProgressBar("film", steps) as bar:
        save_video(shown.film(episodes, fps, counter(bar)), path, fps)
    print(f"video    {path}")


def counter(bar: ProgressBar) -> Callable[[int], None]:
    """Returns a function that advances the bar by so many."""
    done = 0

    def advance(by: int) -> None:
        nonlocal done
        done += by
        bar.update(done)

    return advance
