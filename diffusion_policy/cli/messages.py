"""What Hydra, argparse and YAML say about a command line, as one line that a person can act on."""

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # which words are options is told nowhere else; pinned below 1.4
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import OmegaConf

from diffusion_policy.errors import DiffusionPolicyError
from diffusion_policy.paths import config_dir

_GLOBAL = "# @package _global_"


def one_line(error: Exception, config_name: str, words: Sequence[str] = ()) -> str:
    """Returns an error as a person wants to read it; Hydra's multi-line ones become one, with a suggestion.

    Args:
        error: what came out of composing or running.
        config_name: of the command, e.g. "train".
        words: the command line, without the command.
    """
    text = str(error).strip()
    if isinstance(error, DiffusionPolicyError):
        return text
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, config_name)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}"
        return f"{where}: {', '.join(filter(None, (error.context, error.problem)))}; correct the YAML there"
    absent = re.search(r"Missing mandatory value: (\S+)", text)
    if absent:
        return f"{absent.group(1)}: expected a value, got nothing; give {absent.group(1)}=..."
    unknown = re.search(r"Key '([^']+)' is not in struct", text) or re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = re.search(r"full_key: (\S+)", text)
        name = key.group(1) if key else unknown.group(1)
        return f"unknown setting '{name}'{_suggestion(name, config_name, words)}; --help lists all settings"
    variable = re.search(r"Environment variable '(\w+)' not found", text)
    if variable:
        name = variable.group(1)
        command = f"dp-{config_name.replace('_', '-')} {shlex.join(words)}".rstrip()
        return f"the environment lacks {name}, from which a setting takes its value; give it: {name}=... {command}"
    group = re.search(r"In '[^']*': Could not find '([^']+)'", text) or re.search(r"Could not find '([^']+)'", text)
    if group:
        options = re.findall(r"^\t([\w-]+)$", text, flags=re.MULTILINE)
        folder, _, name = group.group(1).rpartition("/")
        close = difflib.get_close_matches(name, options, n=1)
        meant = f", did you mean {close[0]}? " if close else ", "
        known = f"{meant}known: {', '.join(options)}" if options else ""
        return f"unknown {folder or 'config'} '{name}'{known}; --config-dir=FOLDER adds your own"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = " ".join(lines[:2]) if isinstance(error, ConfigCompositionException) else lines[0] if lines else ""
    return first or type(error).__name__


def unknown_option(words: Sequence[str]) -> str | None:
    """Returns what is wrong with a command line of options that Hydra does not know; None if there are none.

    Args:
        words: the command line, without the command.
    """
    unknown = get_args_parser().parse_known_args(list(words))[1]
    if not unknown:
        return None
    option, _, value = unknown[0].partition("=")
    follows = words[list(words).index(unknown[0]) + 1 :][:1]
    if not value:
        value = follows[0] if follows and "=" not in follows[0] and not follows[0].startswith("-") else "..."
    return f"unknown option {option}; settings are KEY=VALUE: {option.lstrip('-').replace('-', '_')}={value}"


def misplaced_group(settings: Mapping[str, Any], choices: Mapping[str, Any]) -> str | None:
    """Returns which task or preset stands beneath its group's name, where nobody looks, for want of a first line."""
    for group in ("task", "preset"):
        if isinstance(settings.get(group), Mapping):
            name = choices.get(group)
            return f"{group}={name}: the first line of {group}/{name}.yaml must be '{_GLOBAL}'; add it"
    return None


def _unreadable(override: str, config_name: str) -> str:
    key, equals, value = override.partition("=")
    if not (equals and re.fullmatch(r"[+~]*[\w./@:-]+", key)):
        return f"settings are KEY=VALUE, but got '{override}'; e.g. {_example(override, config_name)}"
    advised = shlex.quote(f"{key}={_readable(value)}")
    return f"{key}: a value with special characters needs quotes, but got {value}; write {advised}"


def _readable(value: str) -> str:
    """Returns a value as Hydra reads it: in quotes what needs them, in lists and mappings each entry by itself."""
    if _parses(value):
        return value
    if value[:1] + value[-1:] == "[]":
        return f"[{','.join(_readable(each) for each in _entries(value[1:-1]))}]"
    if value[:1] + value[-1:] == "{}" and ":" in value:
        pairs = (each.partition(":") for each in _entries(value[1:-1]))
        return f"{{{','.join(f'{key}: {_readable(each.strip())}' for key, _, each in pairs)}}}"
    escaped = value.replace('"', '\\"')
    return f'"{escaped}"'


def _parses(value: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def _entries(text: str) -> Iterator[str]:
    """Yields what commas separate, apart from those within brackets or quotes."""
    begin, depth, quote = 0, 0, ""
    for at, letter in enumerate(text):
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        depth += 0 if quote else (letter in "[{(") - (letter in "]})")
        if letter == "," and not depth and not quote:
            yield text[begin:at].strip()
            begin = at + 1
    yield text[begin:].strip()


def _example(word: str, config_name: str) -> str:
    train = config_name == "train"
    if word.endswith(".pt"):
        return f"{'init' if train else 'checkpoint'}={word}"
    if config_name == "eval":
        return f"checkpoint={word.rstrip('/')}/policy.pt"
    if word.endswith((".zarr", ".zip")):
        return f"{'dataset' if train else 'out'}={word}"
    return f"task={word}" if re.fullmatch(r"\w+", word) else f"out={word}"


def _suggestion(name: str, config_name: str, words: Sequence[str]) -> str:
    policy = next((word.partition("=")[2] for word in reversed(words) if word.startswith("policy=")), None)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            known = _keys(OmegaConf.to_container(compose(config_name)))
            with_policy = _keys(OmegaConf.to_container(compose(config_name, [f"policy={policy}"]))) if policy else known
    except Exception:
        return ""
    if name in known and name not in with_policy:
        group = name.partition(".")[0]
        there = any(each.startswith(f"{group}.") for each in with_policy)
        return f": policy '{policy}' has no {f'setting {name}' if there else f'section {group}'}"
    if name in known:
        return f", because the chosen task or policy has none (does its file begin with '{_GLOBAL}'?)"
    close = difflib.get_close_matches(name, known, n=3)
    return f", did you mean {' or '.join(close)}?" if close else ""


def _keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    found = []
    for key, value in node.items():
        found += [f"{prefix}{key}", *_keys(value, f"{prefix}{key}.")]
    return found
