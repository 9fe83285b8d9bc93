"""Requests made up from the OpenAPI that the embedded API publishes: never a 500."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from testbed.apiserver import ApiServer
from tests.kubernetes.embedded import embedded_server

GROUPS = ["api/v1", "apis/chaos-mesh.org/v1alpha1", "apis/squall.dev/v1alpha1"]


@pytest.fixture(scope="module")
def fuzzed(in_memory: Path) -> Iterator[ApiServer]:
    """A server of its own: nobody knows what will be in it."""
    folder = in_memory / "fuzzed"
    folder.mkdir()
    with embedded_server(folder) as server:
        yield server


@pytest.mark.parametrize("group", GROUPS)
def test_no_request_makes_the_server_fail(fuzzed: ApiServer, group: str):
    headers = {"Authorization": f"Bearer {fuzzed.token}"}
    trusted = ssl.create_default_context(cafile=str(fuzzed.authority))
    with httpx2.Client(base_url=fuzzed.url, verify=trusted, trust_env=False) as http:
        document = http.get(f"/openapi/v3/{group}", headers=headers).json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert operations

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(data.draw(st.sampled_from(operations)).as_strategy())
        case.call_and_validate(
            base_url=fuzzed.url,
            headers=headers,
            verify=str(fuzzed.authority),
            checks=[not_a_server_error],
        )

    ask()
