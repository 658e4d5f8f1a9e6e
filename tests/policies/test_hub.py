"""policy.pt and its card, in a folder and in a repository; the hub itself is a folder here."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError, OutputExistsError, StorageError
from diffusion_policy.policies import hub
from diffusion_policy.policies.info import CheckpointInfo
from tests.policies.test_diffusion_policy import make_obs, make_policy

INFO = CheckpointInfo(
    env={"id": "x:Y-v0"},
    dataset={"digest": "abc123", "provenance": {"path": "/home/me/secret"}},
    training={"grad_steps": 400},
    versions={"torch": "2.13"},
    eval={"success_rate": {"mean": 0.5, "ci95": [0.4, 0.6]}, "episodes": 200},
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_policy().save(tmp_path / "policy.pt", INFO)
    return tmp_path / "policy.pt"


def test_card_says_what_the_file_says_and_nothing_else(saved: Path) -> None:
    card = hub.model_card(saved)
    assert card.startswith("---\nlibrary_name: diffusion-policy\n")
    for fact in ("# Diffusion policy for x:Y-v0", "digest abc123", "| gradient steps | 400 |", "torch 2.13"):
        assert fact in card
    assert "success_rate: 0.500 (95 % interval 0.400 to 0.600)" in card
    assert "`points`: low_dim [3, 2]" in card
    assert "/home/me" not in card  # where the data lay is nobody's business
    make_policy().save(saved)
    bare = hub.model_card(saved)
    assert "None is noted in the file." in bare
    assert "| environment | not noted |" in bare


def test_folder_round_trip_gives_the_same_actions(saved: Path, tmp_path: Path) -> None:
    folder = hub.save_pretrained(saved, tmp_path / "out" / "mine")
    assert {path.name for path in folder.iterdir()} == {"policy.pt", "README.md"}
    noise = np.ones((2, 8, 2), np.float32)
    found = hub.from_pretrained(folder).predict(make_obs(2), noise).actions
    np.testing.assert_array_equal(found, make_policy().predict(make_obs(2), noise).actions)
    with pytest.raises(OutputExistsError, match="already exists"):
        hub.save_pretrained(saved, folder)
    with pytest.raises(MissingFileError, match="does not exist"):
        hub.from_pretrained(tmp_path / "none")


class FolderApi:
    """`HfApi` whose repositories are folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create_repo(self, *, repo_id: str, private: bool | None, exist_ok: bool, repo_type: str) -> None:
        assert (exist_ok, repo_type) == (True, "model")
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str) -> Any:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(repo_url=f"folder://{repo_id}")

    def download(self, repo_id: str, name: str, revision: str | None) -> str:
        if not (self.root / repo_id / name).exists():
            raise RuntimeError(f"404: {repo_id}\nlong story")
        return str(self.root / repo_id / name)


def test_pushed_policy_is_pulled_with_the_same_actions(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = FolderApi(tmp_path / "hub")
    assert hub.push_to_hub(saved, "me/pusht", api=api) == "folder://me/pusht"
    assert {path.name for path in (tmp_path / "hub/me/pusht").iterdir()} == {"policy.pt", "README.md"}
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library, "hf_hub_download", lambda repo, name, revision: api.download(repo, name, revision))
    noise = np.ones((1, 8, 2), np.float32)
    found = hub.from_pretrained("me/pusht").predict(make_obs(1), noise).actions
    np.testing.assert_array_equal(found, make_policy().predict(make_obs(1), noise).actions)
    with pytest.raises(MissingFileError, match=r"the hub has no policy\.pt of that name: 404: me/other") as caught:
        hub.from_pretrained("me/other")
    assert "\n" not in str(caught.value)


def test_push_that_fails_is_one_line(saved: Path, tmp_path: Path) -> None:
    class Refuses(FolderApi):
        def create_repo(self, **words: Any) -> None:
            raise RuntimeError("401: who are you?\nlong story")

    with pytest.raises(StorageError, match="cannot upload to me/x: 401: who are you") as caught:
        hub.push_to_hub(saved, "me/x", api=Refuses(tmp_path))
    assert "\n" not in str(caught.value)
    (tmp_path / "odd.pt").write_bytes(b"no policy")
    with pytest.raises(CheckpointError, match="cut short or not a policy checkpoint"):
        hub.push_to_hub(tmp_path / "odd.pt", "me/x", api=FolderApi(tmp_path))


def test_hub_without_its_library_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: hub.push_to_hub(saved, "me/x"), lambda: hub.from_pretrained("me/x")):
        with pytest.raises(ConfigError, match=r"pip install 'diffusion-policy\[hub\]'"):
            call()


def test_a_readme_of_ones_own_is_not_written_over(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own words")
    with pytest.raises(OutputExistsError, match=r"README\.md already exists"):
        hub.save_pretrained(saved, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    assert (tmp_path / "mine" / "README.md").read_text() == "my own words"


def test_a_copy_that_fails_leaves_nothing_in_the_way(saved: Path, tmp_path: Path, monkeypatch) -> None:
    def full(source: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(hub.shutil, "copyfile", full)
        with pytest.raises(StorageError, match="No space left"):
            hub.save_pretrained(saved, tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    hub.save_pretrained(saved, tmp_path / "mine")
