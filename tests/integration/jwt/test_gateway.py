"""A gateway that believes an issuer: uploads, routes and pages, asked over real sockets."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from yarl import URL

from gateway.auth.jwt.claims import truncated_principal
from gateway.auth.tokens import token_digest
from gateway.errors import ConfigError
from gateway.plugins import PluginErrors
from gateway.server.app import Gateway
from gateway.settings import load
from gateway.telemetry.redaction import INTERNAL_HEADER
from tests.conftest import StartGateway
from tests.support import PROJECT
from tests.support.harness import RawResponse, get, handlers_done, put, write_plugin
from tests.support.jwt.issuing import FakeIssuer, flags, rsa_pair
from tests.support.routing.scripted import route, write

SEES = """
- name: sees
  event: APIGW.OnFileUploaded
  script: |
    import json, pathlib

    async def sees(event, handle):
        text = json.dumps(event["principal"])
        pathlib.Path(event["filepath"] + ".seen").write_text(text)
"""
WHO = "return request.principal"


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


def challenge(answer: RawResponse) -> str:
    return answer.headers["WWW-Authenticate"].removeprefix('Bearer realm="upload-gateway"')


@pytest.fixture
def believing(start_gateway: StartGateway, issuer: FakeIssuer, tmp_path: Path) -> StartGateway:
    """Start a gateway that believes the issuer: `await believing(route(...), auth="jwt")`."""

    async def begin(*texts: str, **values: object) -> Gateway:
        folder = write(tmp_path / "plugins", *texts) if texts else None
        given = {"plugins": [str(folder)]} if folder else {}
        return await start_gateway(**{"auth": "jwt", **flags(issuer), **given, **values})

    return begin


async def test_an_upload_needs_a_token_that_is_believed(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing()
    assert (await put(gateway, "/upload/a", b"x", bearer(issuer.token()))).status == 201
    nobody = await put(gateway, "/upload/b", b"x")
    assert (nobody.status, nobody.json["error"], challenge(nobody)) == (401, "unauthorized", "")
    old = await put(gateway, "/upload/b", b"x", bearer(issuer.token(exp=int(time.time()) - 60)))
    assert old.json["message"] == "the token has expired"
    assert challenge(old) == ', error="invalid_token", error_description="the token has expired"'
    forged = await put(gateway, "/upload/b", b"x", bearer(issuer.token(rsa_pair("evil"))))
    assert forged.json["message"] == "the token is not accepted here"
    # Only where it belongs: a JSON Web Token is no `X-Auth-Token`.
    other = await put(gateway, "/upload/b", b"x", f"X-Auth-Token: {issuer.token()}")
    assert (other.status, challenge(other)) == (401, "")
    assert not (gateway.resources.settings.directory / "upload/b").exists()


async def test_a_download_needs_one_too(believing: StartGateway, issuer: FakeIssuer) -> None:
    gateway = await believing(downloads=True)
    await put(gateway, "/upload/a", b"mine", bearer(issuer.token()))
    assert (await get(gateway, "/upload/a", bearer(issuer.token()))).body == b"mine"
    old = await get(gateway, "/upload/a", bearer(issuer.token(exp=1)))
    assert (old.status, old.json["message"]) == (401, "the token has expired")
    assert challenge(await get(gateway, "/upload/a")) == ""


async def test_refusals_do_not_tell_what_would_have_been_right(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing()
    for wrong in ({"aud": "x"}, {"iss": "https://x"}, {"sub": None}, {"exp": None}):
        answer = await put(gateway, "/upload/b", b"x", bearer(issuer.token(**wrong)))
        assert answer.status == 401
        said = f"{answer.headers} {answer.body!r}"
        assert not [secret for secret in ("photos", issuer.url, "r1", "RS256") if secret in said]


async def test_the_claims_are_what_handlers_see_and_the_token_is_nowhere(
    believing: StartGateway, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    gateway = await believing(SEES, auth="none")  # then the test may ask how the handlers do
    token = issuer.token(scope="openid photos/write", email="ann@x.example", **{"cognito:groups": ["a"]})
    answer = await put(gateway, "/upload/a", b"x", bearer(token))
    await handlers_done(gateway, answer.json["upload_id"])
    seen = json.loads((gateway.resources.settings.directory / "upload/a.seen").read_text())
    assert {name: seen[name] for name in ("name", "kind", "scopes", "groups")} == {
        "name": "ann",
        "kind": "jwt",
        "scopes": ["openid", "photos/write"],
        "groups": ["a"],
    }
    assert seen["claims"]["email"] == "ann@x.example"
    kept_files = [path for path in gateway.resources.settings.state.rglob("*") if path.is_file()]
    secret = token.rpartition(".")[2].encode()
    assert kept_files
    assert not [path for path in kept_files if secret in path.read_bytes()]
    assert secret.decode() not in caplog.text


def test_a_principal_with_very_much_to_say_is_written_down_short() -> None:
    claims = {"iss": "i", "sub": "ann", "exp": 1, "aud": ["x" * 300], "much": "y" * 9000}
    groups = [f"group{number}" for number in range(900)]
    principal = {"name": "ann", "kind": "jwt", "claims": claims, "scopes": ["a"], "groups": groups}
    short = truncated_principal(principal)
    assert short is not None
    assert short["claims"] == {"iss": "i", "sub": "ann", "exp": 1}
    assert (short["scopes"], short["groups"]) == (["a"], groups[:64])
    assert len(json.dumps(short)) < 4096
    assert truncated_principal(None) is None
    for small in ({"name": "a", "kind": "token"}, {**principal, "claims": {"sub": "a"}, "groups": []}):
        assert truncated_principal(small) == small


async def test_while_nobody_knows_the_keys_the_answer_is_503_and_not_401(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    issuer.status = 500
    gateway = await believing(tokens=[f"ann:{token_digest('word')}"])
    answer = await put(gateway, "/upload/a", b"x", bearer(issuer.token()))
    assert (answer.status, answer.json["error"]) == (503, "issuer_unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert b"gateway_issuer_ready 0.0" in (await get(gateway, "/-/metrics", bearer("word"))).body
    assert (await put(gateway, "/upload/a", b"x", bearer("junk"))).status == 401
    assert (await put(gateway, "/upload/a", b"x", bearer("word"))).status == 201


async def test_tokens_and_gateways_of_the_installation_pass_beside_it(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing(route("/who", WHO, auth="default"), tokens=[f"bot:{token_digest('word')}"])
    ann = await get(gateway, "/who", bearer(issuer.token()))
    assert (ann.json["name"], ann.json["claims"]["sub"]) == ("ann", "ann")
    assert (await get(gateway, "/who", bearer("word"))).json == {"name": "bot", "kind": "token"}
    both = await get(gateway, "/who", bearer(issuer.token()), "X-Auth-Token: word")
    assert both.json["kind"] == "token"
    trusted = gateway.resources.base.installation.credentials_for("GET", URL(f"{gateway.url}/who"))
    assert trusted is not None
    ours = await get(gateway, "/who", f"{INTERNAL_HEADER}: {trusted.credential}", bearer("junk"))
    assert ours.json["kind"] == "internal"
    assert (await get(gateway, "/who")).status == 401


async def test_a_route_may_demand_one_whatever_the_default_is(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing(
        route("/users", WHO, auth="jwt"),
        route("/bots", WHO, auth="token"),
        route("/all", WHO),
        route("/default", WHO, auth="default"),
        auth="token",
        tokens=[f"bot:{token_digest('word')}"],
    )
    ann = bearer(issuer.token())
    assert (await get(gateway, "/users", ann)).json["name"] == "ann"
    assert (await get(gateway, "/users", bearer("word"))).status == 401
    assert challenge(await get(gateway, "/users", bearer("junk"))).startswith(', error="invalid_token"')
    # With `token` the holder of a JSON Web Token is nobody: not on routes, not for uploads.
    assert (await get(gateway, "/bots", bearer("word"))).json["name"] == "bot"
    assert (await get(gateway, "/bots", ann)).status == 401
    assert (await get(gateway, "/default", ann)).status == 401
    assert (await put(gateway, "/upload/a", b"x", ann)).status == 401
    # Where all may come, a good one still tells who it is, and a bad one is nobody's.
    assert (await get(gateway, "/all", ann)).json["name"] == "ann"
    assert (await get(gateway, "/all", bearer("junk"))).status == 204


RIGHTS = """
upstreams: []
proxy:
  path: {path}
  authorization: {{auth: {mode}, {rights}}}
request_script: |
  return request.principal
"""


async def test_scopes_are_all_needed_and_one_group_is(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing(
        RIGHTS.format(path="/s", mode="jwt", rights="scopes: [photos/read, photos/write]"),
        RIGHTS.format(path="/g", mode="default", rights="groups: [admins, editors]"),
        RIGHTS.format(path="/b", mode="default", rights="scopes: [a], groups: [g]"),
        tokens=[f"bot:{token_digest('word')}"],
    )

    async def status(path: str, **claims: object) -> int:
        return (await get(gateway, path, bearer(issuer.token(**claims)))).status

    assert await status("/s", scope="photos/write openid photos/read") == 200
    assert await status("/s", scp=["photos/read", "photos/write"]) == 200
    assert await status("/s", scope="photos/write") == 403
    assert await status("/s", scope="photos/write photos/readall") == 403
    assert await status("/s") == 403
    assert await status("/g", **{"cognito:groups": ["x", "editors"]}) == 200
    assert await status("/g", roles=["admins"]) == 200
    assert await status("/g", groups="admins") == 200
    assert await status("/g", groups=["editor", "admins editors"]) == 403
    assert await status("/g", groups={"admins": True}) == 403
    assert await status("/g", scope="admins") == 403
    assert await status("/b", scope="a", groups=["g"]) == 200
    assert await status("/b", scope="a") == 403
    assert await status("/b", groups=["g"]) == 403

    lacking = await get(gateway, "/s", bearer(issuer.token()))
    assert lacking.json["error"] == "insufficient_scope"
    assert "the scopes photos/read photos/write that" in lacking.json["message"]
    half = await get(gateway, "/s", bearer(issuer.token(scope="photos/write")))
    assert half.json["message"] == "the token lacks the scopes photos/read that this path needs"
    assert challenge(lacking) == ', error="insufficient_scope", scope="photos/read photos/write"'
    outside = await get(gateway, "/g", bearer(issuer.token()))
    assert challenge(outside) == ', error="insufficient_scope"'
    assert "admins" not in f"{outside.headers} {outside.body!r}"
    # A token of the settings has no scopes; who is nobody is told so first.
    assert (await get(gateway, "/g", bearer("word"))).status == 403
    assert (await get(gateway, "/g")).status == 401


async def test_where_everybody_may_do_everything_rights_are_not_asked_for(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    text = RIGHTS.format(path="/s", mode="default", rights="scopes: [a]")
    gateway = await start_gateway(auth="none", plugins=[str(write_plugin(tmp_path / "plugins", text))])
    assert (await get(gateway, "/s")).status == 204


async def test_the_pages_are_for_operators(believing: StartGateway, issuer: FakeIssuer) -> None:
    gateway = await believing(jwt_operators=["ops", "root"], tokens=[f"bot:{token_digest('word')}"])
    await get(gateway, "/who", bearer(issuer.token()))
    metrics = await get(gateway, "/-/metrics", bearer("word"))
    assert b"gateway_issuer_ready 1.0" in metrics.body
    ops = bearer(issuer.token(**{"cognito:groups": ["ops"]}))
    user = bearer(issuer.token(**{"cognito:groups": ["users"]}))
    stored = (await put(gateway, "/upload/a", b"secret", user)).json["upload_id"]
    for page in ("/-/metrics", "/-/events", f"/-/files/{stored}"):
        assert (await get(gateway, page, ops)).status == 200
        assert (await get(gateway, page, bearer("word"))).status == 200
        assert (await get(gateway, page)).status == 401
        refused = await get(gateway, page, user)
        assert (refused.status, refused.json["error"]) == (403, "forbidden")
    assert (await get(gateway, "/-/health")).status == 200


async def test_a_user_sees_its_own_uploads_and_operators_all(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing(jwt_operators=["ops"])
    ops = bearer(issuer.token(groups=["ops"]))
    people = [bearer(issuer.token(sub=name)) for name in ("ann", "ben")]
    stored = [(await put(gateway, "/upload/a", b"x", who)).json["upload_id"] for who in people]
    for who, mine, others in ((people[0], *stored), (people[1], *stored[::-1])):
        assert (await get(gateway, f"/-/uploads/{mine}", who)).status == 200
        assert (await get(gateway, f"/-/uploads/{others}", who)).status == 404
        for query in ("", "?principal=ann&kind=jwt", "?principal=ben"):
            listed = (await get(gateway, f"/-/uploads{query}", who)).json["uploads"]
            assert [upload["upload_id"] for upload in listed] == [mine]
    assert len((await get(gateway, "/-/uploads", ops)).json["uploads"]) == 2


async def test_without_operators_a_users_token_opens_no_page(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing()
    token = bearer(issuer.token(groups=[""], **{"cognito:groups": []}))
    assert (await get(gateway, "/-/events", token)).status == 403


async def test_where_everybody_may_upload_a_users_token_gives_no_more_than_none(
    believing: StartGateway, issuer: FakeIssuer
) -> None:
    gateway = await believing(auth="none")
    user = bearer(issuer.token())
    stored = (await put(gateway, "/upload/a", b"secret", user)).json["upload_id"]
    assert (await get(gateway, "/-/events", user)).status == 200
    assert (await get(gateway, f"/-/files/{stored}", user)).status == 403


async def test_a_token_goes_on_to_the_upstream_which_may_read_it(
    believing: StartGateway, issuer: FakeIssuer, tmp_path: Path
) -> None:
    back = await believing(
        route("/{all:path}", 'return request.headers.get("Authorization")'),
        auth="none",
        directory=str(tmp_path / "back"),
    )
    up = "{}:{}".format(*back.address)
    front = await believing(
        route("/a", auth="default").replace("[]", f"['{up}']"), tokens=[f"bot:{token_digest('word')}"]
    )
    token = issuer.token()
    assert (await get(front, "/a", bearer(token))).body.decode() == f"Bearer {token}"
    assert (await get(front, "/a", bearer("word"))).body == b""


@pytest.mark.parametrize(
    ("rights", "mode", "words"),
    [
        ("scopes: [a]", "none", "only JSON Web Tokens have scopes and groups"),
        ("groups: [a]", "token", "only JSON Web Tokens have scopes and groups"),
        ("scopes: ['a b']", "jwt", "must be a scope"),
        ("scopes: ['']", "jwt", "must be a scope"),
        ("scopes: [é]", "jwt", "must be a scope"),
        ("groups: ['']", "jwt", "at least 1 character"),
        ("scopes: a", "jwt", "list"),
    ],
)
async def test_rights_that_cannot_be_asked_for_are_a_fault_with_its_line(
    believing: StartGateway, rights: str, mode: str, words: str
) -> None:
    with pytest.raises(PluginErrors) as caught:
        await believing(RIGHTS.format(path="/s", mode=mode, rights=rights))
    assert "0.yaml:5: " in str(caught.value)
    assert words in str(caught.value)


async def test_a_route_that_demands_one_where_no_issuer_is_known_is_a_fault_with_its_line(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", route("/a", auth="jwt"))
    with pytest.raises(PluginErrors, match=r"plugin.yaml:2: the route authorizes by JSON Web Token"):
        await start_gateway(plugins=[str(folder)])


def test_an_issuer_in_the_file_is_complained_of_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.yaml").write_text("auth: jwt\njwt_issuer: https://i.example/pool\n")
    with pytest.raises(ConfigError, match=r"gateway.yaml:2: jwt_issuer: no audience is set"):
        load({"directory": str(tmp_path)}, {})


def test_the_table_of_attacks_names_tests_that_exist() -> None:
    page = (PROJECT / "docs/how-to/jwt.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    written = "".join(path.read_text() for path in (PROJECT / "tests").rglob("jwt/test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in written} == set()
