"""Chained digests."""

import numpy as np
import pytest

from diffusion_policy.data.digest import GENESIS, chain

EPISODE = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.array([1, 2, 3], np.uint8)}


def test_chain_ignores_key_order_memory_layout_and_byte_order() -> None:
    other = {"b": EPISODE["b"], "a": np.asfortranarray(EPISODE["a"]).astype(">f4")}
    assert chain(GENESIS, other) == chain(GENESIS, EPISODE)


@pytest.mark.parametrize(
    "changed",
    [
        {"a": EPISODE["a"] + 1, "b": EPISODE["b"]},
        {"a": EPISODE["a"].reshape(3, 1, 2), "b": EPISODE["b"]},
        {"a": EPISODE["a"], "b": EPISODE["b"].astype(np.int8)},
        {"a": EPISODE["a"], "c": EPISODE["b"]},
        {"a": EPISODE["a"]},
    ],
    ids=["value", "shape", "dtype", "name", "fewer"],
)
def test_chain_changes_with_content(changed: dict[str, np.ndarray]) -> None:
    assert chain(GENESIS, changed) != chain(GENESIS, EPISODE)


def test_chain_depends_on_what_came_before() -> None:
    assert chain(chain(GENESIS, EPISODE), EPISODE) != chain(GENESIS, EPISODE)


def test_chain_stays_what_it_was() -> None:
    """Digests stand in policies and papers: a change of the definition must be a decision."""
    assert chain(GENESIS, EPISODE).hex() == "17862765dc79f9243f21788ab80a3ddd58c64a16ef69c2dcad86119a71fc54ea"
