"""Names as a target sees them, where its files are not what one would like."""

import pytest

from squall.errors import TryAgain
from squall.linux.resolver import _ask


@pytest.mark.parametrize(
    "servers", ["", "# none here\n", "search example.org\n", "nameserver banana\n", "nameserver\n"]
)
def test_a_target_without_a_name_server_is_asked_again_later(servers):
    with pytest.raises(TryAgain, match=r"db\.example"):
        _ask(servers, "db.example")
