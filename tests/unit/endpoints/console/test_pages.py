"""Which paths have a page."""

from __future__ import annotations

import pytest

from gateway.domain import paths
from gateway.domain.api_routes import API_ROUTES, match_api_route
from gateway.endpoints.console.pages import PAGES, PagePlace, find_page
from gateway.endpoints.console.static_files import STATIC


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", PagePlace("upload", "-/")),
        ("/-/", PagePlace("home", "./")),
        ("/-/events", PagePlace("events", "./")),
        ("/-/events/01J", PagePlace("event", "../")),
        ("/-/uploads/a%20b", PagePlace("timeline", "../")),
        ("/-/uploads/{upload_id}", PagePlace("timeline", "../")),
    ],
)
def test_paths_have_the_page_of_what_the_api_serves_there(path: str, place: PagePlace) -> None:
    assert find_page(path) == place


@pytest.mark.parametrize(
    "path",
    [
        *("", "/-", "//", "/-/events/", "/-/events/a/b", "/-/none", "/-/objects/a", "/upload/a"),
        *("/-/%65vents", "/-/events/depth", "/-/uploads/removed", "/-/metrics", "/-/docs", "/-/health"),
    ],
)
def test_other_paths_have_none(path: str) -> None:
    assert find_page(path) is None


def test_endpoints_that_are_literal_have_no_page_of_a_variable() -> None:
    for route in API_ROUTES:
        if "{" not in route.pattern and route.pattern not in PAGES:
            assert find_page(route.pattern) is None, route.pattern


def test_every_page_has_its_files_and_a_path_of_the_api() -> None:
    without_data = {"upload", "home", "drop", "share"}
    for path, name in PAGES.items():
        assert (STATIC / "console" / f"{name}.js").is_file()
        assert (STATIC / "console" / f"{name}.css").is_file()
        if name not in without_data:
            match = match_api_route(paths.decode(path.replace("{", "").replace("}", "")))
            assert match is not None, path
            assert "GET" in match.routes, path
