from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from serving import BrightnessPredictor, serve

from maskfast.apps.web.app import create_app
from maskfast.apps.web.openapi import describe_api
from maskfast.apps.web.settings import ServeSettings

# Beside these there are the checks on positive examples, which arbitrary bytes as pictures cannot be.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(describe_api()).get_all_operations()]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(max_body=200_000) as (address, _):
        yield address


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_whatever_the_description_allows_is_answered_as_it_says(operation: schemathesis.APIOperation, url: str) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS, timeout=10)

    check()


def test_every_route_is_described() -> None:
    app = create_app(BrightnessPredictor(), ServeSettings())
    routes = {route.path for route in app.routes} - {"/", "/static", "/openapi.json"}
    assert routes == set(describe_api()["paths"])


def test_the_description_is_served(url: str) -> None:
    assert httpx.get(f"{url}/openapi.json").json() == describe_api()
