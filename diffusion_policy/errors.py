"""Every error a user can cause has one root, and is also the builtin one would expect.

A message says what was expected, what came, and what to do about it. Commands print it as one line and exit
with code 2; `except ValueError` (or KeyError, FileNotFoundError ...) works in scripts.
"""


class DiffusionPolicyError(Exception):
    """Root of all errors raised on purpose by this package.

    Attributes:
        partial: what was done before, e.g. the `EvalResult` of an evaluation's first episodes; None if nothing was.
    """

    partial: object | None = None


class ConfigError(DiffusionPolicyError, ValueError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class UnknownNameError(ConfigError, KeyError):
    """A name is not registered; the message lists the known ones."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would print the repr, quotes and all


class DataError(DiffusionPolicyError, ValueError):
    """A data set does not hold what was asked of it, or is damaged."""


class MissingFileError(DiffusionPolicyError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class RemoteError(DiffusionPolicyError, ConnectionError):
    """A data set behind an address cannot be read: no connection, no answer, no permission."""


class OutputExistsError(DiffusionPolicyError, FileExistsError):
    """The output place already holds results; nothing was overwritten."""


class CheckpointError(DiffusionPolicyError, ValueError):
    """A checkpoint is damaged, of another format, or holds something other than data."""


class ObservationError(DiffusionPolicyError, ValueError):
    """An observation (or noise) has the wrong key, shape or dtype."""


class PolicyLostError(DiffusionPolicyError, RuntimeError):
    """The process in which a policy computes has ended."""


class RankLostError(DiffusionPolicyError, RuntimeError):
    """One of several processes that train together has ended."""


class EnvironmentIdError(DiffusionPolicyError, ValueError):
    """An environment id or its arguments are not known to gymnasium."""


class EnvironmentFailedError(DiffusionPolicyError, RuntimeError):
    """An environment raised while an episode ran in it."""


class RenderError(DiffusionPolicyError, RuntimeError):
    """A frame was asked for and this machine, or this environment, cannot draw one."""


class WorkerError(DiffusionPolicyError, RuntimeError):
    """An environment raised in a worker process, or such processes ended or hung again and again."""


class NonFiniteLossError(DiffusionPolicyError, FloatingPointError):
    """The training loss became NaN or infinite."""


class StorageError(DiffusionPolicyError, OSError):
    """Writing failed (a full disk, a read-only folder); what was there before is intact."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # OSError would begin with [Errno 28]
