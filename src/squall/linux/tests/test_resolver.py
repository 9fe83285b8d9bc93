"""Names that cannot be looked up."""

import pytest

from squall.errors import TryAgain
from squall.linux.resolver import _ask


@pytest.mark.parametrize("servers", ["", "search example.org\n"])
def test_without_a_name_server_a_name_may_come_later(servers):
    with pytest.raises(TryAgain, match="names no server"):
        _ask(servers, "late")
