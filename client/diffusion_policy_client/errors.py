"""Every error of this package has one root, and is also the builtin one would expect."""


class ClientError(Exception):
    """Root of all errors raised on purpose by this package."""


class ServerLostError(ClientError, ConnectionError):
    """There is no connection to the server."""


class MismatchError(ClientError, ValueError):
    """This client and the server do not fit: the token, the protocol, the observations or the rate."""


class ObservationError(ClientError, ValueError):
    """An observation has the wrong key, shape or dtype, or there is nothing to act on yet."""


class PolicyError(ClientError, RuntimeError):
    """The server's policy could not make a plan."""
