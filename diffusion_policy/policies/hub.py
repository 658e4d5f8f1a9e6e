"""policy.pt with a card, in a folder or a repository of huggingface_hub (extra `hub`, imported when asked for only)."""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusion_policy.errors import ConfigError, MissingFileError, OutputExistsError, StorageError
from diffusion_policy.policies.checkpoint import PolicyFile, read_policy_file
from diffusion_policy.policies.library import load_policy
from diffusion_policy.policies.policy import Policy

_FILE, _CARD = "policy.pt", "README.md"


def model_card(checkpoint: str | Path) -> str:
    """Returns a card, Markdown with the hub's head, of what policy.pt says of itself: nothing else enters it."""
    file = read_policy_file(checkpoint)
    rows = [
        ("kind", file.kind),
        ("network", _named(file.config.get("denoiser"))),
        ("sampler", _sampler(file.config.get("sampler"))),
        ("horizons", ", ".join(f"{name} {n}" for name, n in dict(file.config.get("horizons") or {}).items())),
        ("environment", str(file.info.env.get("id") or "not noted")),
        ("data", f"digest {file.info.dataset['digest']}" if file.info.dataset.get("digest") else "not noted"),
        ("gradient steps", str(file.info.training.get("grad_steps") or "not noted")),
        ("imported from", _origin(file.info.training.get("imported"))),
        ("versions", ", ".join(f"{name} {number}" for name, number in file.info.versions.items())),
    ]
    head = ["---", "library_name: diffusion-policy", "pipeline_tag: robotics", "tags:", "- robotics"]
    head += ["- diffusion-policy", "---", "", f"# Diffusion policy{_of_env(file)}", ""]
    table = ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows if value)]
    return "\n".join([*head, *table, "", *_fields(file), *_figures(file.info.eval), *_usage(), ""])


def save_pretrained(checkpoint: str | Path, folder: str | Path) -> Path:
    """Writes a copy of policy.pt and its card, README.md, into a folder; returns it.

    Raises:
        OutputExistsError: it holds a policy, or a README.md, already.
        StorageError: it cannot be written.
    """
    card, target = model_card(checkpoint), Path(folder).expanduser()
    for name in (_FILE, _CARD):
        if (target / name).exists():
            raise OutputExistsError(f"{target / name} already exists; choose another folder, or move it away")
    partial = target / f".{_FILE}.partial"
    try:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(checkpoint).expanduser(), partial)
        (target / _CARD).write_text(card, "utf-8")
        partial.replace(target / _FILE)
    except OSError as error:
        with suppress(OSError):  # a second failure must not hide the first
            partial.unlink(missing_ok=True)
            (target / _CARD).unlink(missing_ok=True)
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def from_pretrained(name: str | Path, *, device: str = "cpu", revision: str | None = None) -> Policy:
    """Returns the policy in a folder, or in a repository of the hub.

    Nothing in it is executed or imported, wherever it comes from.

    Args:
        name: a folder with policy.pt, or the id of a repository, "user/name".
        device: see `load_policy`.
        revision: of the repository: a branch, a tag or a commit.

    Raises:
        MissingFileError: there is no such folder or repository, or it has no policy.pt.
        ConfigError: huggingface_hub is needed, and not installed.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() or str(name).count("/") != 1 or str(name).startswith((".", "~", "/")):
        return load_policy(folder / _FILE, device)
    hub = _hub()
    try:
        path = hub.hf_hub_download(str(name), _FILE, revision=revision)
    except Exception as error:  # a hundred kinds: no network, no such repository, no permission
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MissingFileError(
            f"there is no folder {name}, and the hub has no {_FILE} of that name: {first}"
        ) from error
    return load_policy(path, device)


def push_to_hub(checkpoint: str | Path, repo_id: str, *, private: bool | None = None, api: Any = None) -> str:
    """Uploads policy.pt and its card; returns the address.

    Args:
        checkpoint: a policy.pt.
        repo_id: "user/name"; it is made if it does not exist.
        private: whether a new repository is.
        api: a `huggingface_hub.HfApi` of your own, e.g. with another endpoint or token; None for the usual one.

    Raises:
        ConfigError: huggingface_hub is not installed.
        StorageError: the hub refuses.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(checkpoint, temporary)
        client = _hub().HfApi() if api is None else api
        try:
            client.create_repo(repo_id=repo_id, private=private, exist_ok=True, repo_type="model")
            done = client.upload_folder(
                repo_id=repo_id,
                folder_path=str(folder),
                repo_type="model",
                commit_message="Upload policy.pt and its card",
            )
        except Exception as error:  # as above
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StorageError(f"cannot upload to {repo_id}: {first}") from error
    return str(getattr(done, "repo_url", "") or done)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError("this needs huggingface_hub: pip install 'diffusion-policy[hub]'") from error
    return huggingface_hub


def _of_env(file: PolicyFile) -> str:
    return f" for {file.info.env['id']}" if file.info.env.get("id") else ""


def _named(section: Any) -> str:
    settings = dict(section or {})
    name = settings.pop("name", "")
    return f"{name} ({', '.join(f'{key} {value}' for key, value in settings.items())})" if settings else str(name)


def _sampler(section: Any) -> str:
    settings = dict(section or {})
    return f"{settings.get('name')}, {settings.get('num_inference_steps')} steps" if settings else ""


def _origin(imported: Any) -> str:
    return f"{imported.get('kind')}, {imported.get('file')}, sha256 {imported.get('sha256')}" if imported else ""


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _fields(file: PolicyFile) -> list[str]:
    units = [
        f"- `{key}`: {field.type} {list(field.shape)} {field.unit}".rstrip() for key, field in file.obs_spec.items()
    ]
    action = file.action_spec
    return ["## Observations and actions", "", *units, f"- action: {list(action.shape)} {action.unit}".rstrip(), ""]


def _figures(found: Mapping[str, Any]) -> list[str]:
    """Returns a section of the evaluation in policy.pt."""
    lines = [f"- {name}: {value}" for name, value in found.items() if isinstance(value, (str, int, float))]
    for name, value in found.items():
        if isinstance(value, Mapping) and "mean" in value:
            low, high = value.get("ci95") or (None, None)
            within = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
            lines.append(f"- {name}: {value['mean']:.3f}{within}")
    return ["## Evaluation", "", *(lines or ["None is noted in the file."]), ""]


def _usage() -> list[str]:
    return [
        "## Use",
        "",
        "```python",
        "from diffusion_policy import RecedingHorizonController",
        "",
        'controller = RecedingHorizonController.load("policy.pt")  # runs nothing of the file; needs torch and numpy',
        "action = controller.act(observation)",
        "```",
    ]
