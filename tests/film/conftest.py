"""The toys of the rollout tests."""

from tests.rollout.conftest import toy_policy, toys  # noqa: F401 (fixtures)
