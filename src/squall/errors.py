"""Families of error, named by what the caller should do next.

SquallError
├── InvalidFault    the author changes the spec
├── TargetGone      nothing is left to undo; forget the target
├── Unsupported     an operator changes the host
├── TryAgain        retry with backoff
└── ApiError        the Kubernetes API said no (squall.api.cluster)
"""


class SquallError(Exception):
    """Anything this project raises on purpose."""


class InvalidFault(SquallError):
    """The author must change the spec; asking again will not help."""


class TargetGone(SquallError):
    """The target no longer exists, so nothing is left to undo; forget it."""


class Unsupported(SquallError):
    """This host can never do it as it is; the message names what is missing and the way out."""


class TryAgain(SquallError):
    """Not now: something did not answer or was busy; retry with backoff."""
