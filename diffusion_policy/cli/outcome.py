"""How a command with arguments of argparse ends: one line and an exit code, whatever stops it."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from diffusion_policy.errors import DiffusionPolicyError


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as all that follows does; argparse shows its usage first."""

    def error(self, message: str) -> NoReturn:
        """Ends the command with code 2."""
        self.exit(2, f"error: {message}; {self.prog} --help shows how\n")


def outcome(run: Callable[[argparse.Namespace], int], args: argparse.Namespace, interrupted: str) -> int:
    """Returns a command's exit code: its own, 2 on bad input, 130 after Ctrl-C.

    Args:
        run: the command.
        args: its arguments; with `debug` errors come with their traceback.
        interrupted: what to say after Ctrl-C.
    """
    try:
        return run(args)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except DiffusionPolicyError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
