"""What --help says of each setting: the comment beside it in the configuration's files, which Hydra leaves out."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

_GROUPS = "Groups (GROUP=NAME):"
_HEADING = "Settings (KEY=VALUE):"
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w-]+):(?P<rest>( .*)?)$")
_COLUMN = 36  # where the words begin, unless the value is longer


def with_words(text: str, config_name: str, conf: Path) -> str:
    """Returns a command's help with a comment behind each setting that has one, and its own groups only.

    Args:
        text: Hydra's, with the settings as YAML at its end.
        config_name: of the command, e.g. "train".
        conf: the folder of <config_name>.yaml and of its groups.
    """
    before, heading, settings = text.partition(_HEADING)
    if not heading:  # Hydra had something else to say
        return text
    words = dict(_of_groups(conf)) | dict(_comments(conf / f"{config_name}.yaml"))
    lines = settings.splitlines()
    for at, path, _ in _keys(lines):
        if path in words:
            lines[at] = f"{lines[at]:<{_COLUMN}}# {words[path]}"
    return _own_groups(before, conf / f"{config_name}.yaml") + heading + "\n".join(lines) + "\n"


def _own_groups(text: str, file: Path) -> str:
    """Returns help without the groups that a command does not choose from: Hydra lists all folders."""
    before, heading, groups = text.partition(_GROUPS)
    defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
    own = {name.split()[-1] for each in defaults if isinstance(each, dict) for name in each}  # "optional tuned"
    kept = [line for line in groups.splitlines(keepends=True) if _group(line) in {None, *own}]
    return before + heading + "".join(kept)


def _group(line: str) -> str | None:
    match = re.match(r"(\w+)[\w/]*: ", line)
    return match[1] if match else None


def _of_groups(conf: Path) -> Iterator[tuple[str, str]]:
    """Yields (path of a setting, its comment) of the groups that have defaults: training.val_every."""
    for file in conf.glob("*/default.yaml"):  # the others' comments are on their own choices
        for path, comment in _comments(file):
            yield f"{file.parent.name}.{path}", comment


def _comments(file: Path) -> Iterator[tuple[str, str]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    for _, path, rest in _keys(lines):
        comment = re.search(r"\s#\s*(.+)$", rest)
        if comment:
            yield path, comment[1]


def _keys(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Yields (line, dotted path, what follows the colon) of each key of YAML in block style."""
    above: list[tuple[int, str]] = []
    for at, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        above = [(depth, key) for depth, key in above if depth < indent] + [(indent, match["key"])]
        yield at, ".".join(key for _, key in above), match["rest"]
