"""Reading the policy of an installation from its file."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from squall.api.policy import Policy
from squall.errors import InvalidFault


def policy_of(path: Path | None) -> Policy:
    """Read a policy; None gives one without limits, an empty file too.

    Raises:
        InvalidFault: it is no policy; nobody may act on half of one.
        OSError: it cannot be read.
    """
    if path is None:
        return Policy()
    try:
        return Policy.model_validate(yaml.safe_load(path.read_text()) or {})
    except (yaml.YAMLError, ValidationError) as mistake:
        raise InvalidFault(f"{path} is no policy: {mistake}") from mistake
