"""The table of the gateway's own endpoints: which row a path belongs to, and what every row has."""

from __future__ import annotations

import pytest

from gateway.domain.api_routes import (
    API_ROUTES,
    EVENTS_PREFIX,
    OBJECTS_PREFIX,
    literal_names,
    match_api_route,
)


@pytest.mark.parametrize(
    ("path", "method", "endpoint", "variables"),
    [
        ("-/health", "HEAD", "health", {}),
        ("-/uploads/x", "GET", "upload", {"upload_id": "x"}),
        ("-/files/x", "DELETE", "file", {"upload_id": "x"}),
        ("-/objects/upload/a/b", "PUT", "object", {"filepath": "upload/a/b"}),
        ("-/events", "GET", "events", {}),
        ("-/events/depth", "GET", "events.depth", {}),
        ("-/events/depths", "GET", "event", {"event_id": "depths"}),
        ("-/events/drop", "POST", "events.drop", {}),
    ],
)
def test_a_path_belongs_to_the_first_pattern_that_matches(
    path: str, method: str, endpoint: str, variables: dict[str, str]
) -> None:
    match = match_api_route(path.split("/"))
    assert match is not None
    route = match.route(method)
    assert route is not None
    assert (route.endpoint, match.variables) == (endpoint, variables)


@pytest.mark.parametrize("path", ["-", "-/", "-/objects", "-/health/", "-/events/a/b", "health", "-/x"])
def test_no_other_path_is_an_endpoint(path: str) -> None:
    assert match_api_route(path.split("/")) is None


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("-/health", ("GET", "HEAD")),
        ("-/files/x", ("GET", "HEAD", "DELETE")),
        ("-/events/drop", ("POST",)),
        ("-/notifications", ("POST",)),
    ],
)
def test_what_a_path_allows_is_told_in_order(path: str, allowed: tuple[str, ...]) -> None:
    match = match_api_route(path.split("/"))
    assert match is not None
    assert match.allowed == allowed
    assert match.route("PATCH") is None


def test_all_methods_of_a_pattern_have_one_access() -> None:
    for pattern in {route.pattern for route in API_ROUTES}:
        rows = [route for route in API_ROUTES if route.pattern == pattern]
        assert len({route.access for route in rows}) == 1
        assert len({route.method for route in rows}) == len(rows)


def test_names_that_stand_below_events_are_no_ids_of_events() -> None:
    verbs = {"retry", "drop", "replay", "pause", "resume"}
    assert literal_names(EVENTS_PREFIX) == {"depth", "errors", "paused", "queue", *verbs}
    assert literal_names(OBJECTS_PREFIX) == frozenset()
