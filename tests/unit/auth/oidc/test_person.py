"""Who a person is, by the claims of an issuer."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.auth.jwt.claims import InvalidToken
from gateway.auth.oidc.person import MAX_GROUPS, has_profile, person_of


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "1", "preferred_username": "ann", "email": "ann@example.org"}, "ann"),
        ({"sub": "1", "email": "ann@example.org"}, "ann@example.org"),
        ({"sub": "1", "email": "ann@example.org", "email_verified": True}, "ann@example.org"),
        ({"sub": "1", "email": "boss@example.org", "email_verified": False}, "1"),
        ({"sub": "1", "preferred_username": ""}, "1"),
        ({"sub": "1", "preferred_username": ["ann"]}, "1"),
        ({"sub": "1", "preferred_username": "a\nb"}, "1"),
        ({"sub": "1", "preferred_username": "a" * 256}, "1"),
    ],
)
def test_the_name_is_the_first_that_people_can_read_and_that_is_theirs(
    claims: dict[str, Any], name: str
) -> None:
    assert person_of(claims, ()) == {"name": name, "kind": "oidc", "groups": []}


def test_somebody_without_a_name_is_nobody() -> None:
    with pytest.raises(InvalidToken):
        person_of({"sub": "\n"}, ())


def test_the_groups_of_the_settings_are_kept_of_many() -> None:
    groups = [f"g{number}" for number in range(200)]
    kept = person_of({"sub": "1", "groups": groups}, {"g150"})["groups"]
    assert (len(kept), kept[0], kept[1]) == (MAX_GROUPS, "g150", "g0")


def test_an_issuer_is_asked_for_more_where_a_name_or_groups_are_missing() -> None:
    assert has_profile({"sub": "1", "preferred_username": "ann", "groups": ["a"]})
    assert not has_profile({"sub": "1", "groups": ["a"]})
    assert not has_profile({"sub": "1", "preferred_username": "ann"})
