"""`gateway check` runs the `tests:` of routing plugins and warns of scripts that take paths."""

from __future__ import annotations

import pytest

from tests.support.cli import Check
from tests.support.routing.scripted import SPEC, route

SCRIPT = """
if request.headers.get("X-Deny"):
    raise HTTPError(403)
config = await get_service_config("c")
answer = await callout(endpoint=config["host"], path="/who", body={"id": request.resources["id"]})
request.headers["X-User"] = answer.json()["user"]
"""
TEXT = route(
    "/users/{id}", SCRIPT, answers="return response.code, response.body.decode() + '!'"
).replace("[]", "[up]")
TEST = "tests:\n- name: the case\n  request: {method: GET, resources: {id: '7'}, headers: {H}}\n"
CALL = "  configs: {c: {host: other}}\n  callout: [{body: {user: bob}}]\n"
DENY = TEST.replace("H", "X-Deny: '1'")
PLAIN = TEST.replace("H", "")


@pytest.mark.parametrize(
    "case",
    [
        f"{PLAIN}{CALL}  upstream: {{code: 201, body: ok}}\n"
        "  expect: {status: 201, output: 'ok!', headers: {x-user: bob},\n"
        "    callouts: [{endpoint: other, path: /who, body: {id: '7'}}]}\n",
        f"{DENY}  expect: {{status: 403, callouts: [],\n"
        "    output: {error: forbidden, message: Forbidden}}\n",
    ],
)
def test_a_case_that_holds_passes(check_text: Check, case: str) -> None:
    code, out, err = check_text(TEXT + case)
    assert (code, err) == (0, "")
    assert "ok    /users/{id}: the case\n" in out


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (f"{DENY}  expect: {{}}\n", "it answered 403"),
        (f"{DENY}  expect: {{status: 401}}\n", "status is 403, expected 401"),
        (f"{PLAIN}{CALL}  expect: {{output: x}}\n", "output is b'!', expected 'x'"),
        (
            f"{PLAIN}{CALL}  expect: {{headers: {{X-User: al}}}}\n",
            "header X-User is 'bob', expected 'al'",
        ),
        (f"{PLAIN}{CALL}  expect: {{callouts: []}}\n", "it made 1 callouts, expected 0"),
        (f"{PLAIN}  expect: {{}}\n", "it failed at x.yaml:6: LookupError"),
    ],
)
def test_a_case_that_does_not_hold_is_told_with_its_line(
    check_text: Check, case: str, fault: str
) -> None:
    code, out, _ = check_text(TEXT + case)
    assert code == 1
    line = (TEXT + case).splitlines().index("- name: the case") + 1
    assert f"x.yaml:{line}: FAILED /users/{{id}}: the case: {fault}" in out


ASSIGNS = route(
    "/v1/{rest:path}",
    "request.method, request.body = 'PUT', {'a': 1}\nrequest.params['y'] = '2'",
    "target: {path: '/v2/{rest:path}'}\n",
    answers="response.code = 202\nresponse.headers['X-Own'] = 'yes'",
).replace("[]", "[up]")
ASSIGNED = (
    "tests:\n- name: the case\n  upstream: {body: streamed, headers: {X-Up: '1'}}\n"
    "  request: {method: POST, resources: {rest: 'a b/c'}, params: {x: ['1']}, body: text}\n"
    "  expect: {status: 202, output: streamed, sent: SENT}\n"
)


def test_a_case_compares_the_request_that_a_script_has_assigned(check_text: Check) -> None:
    sent = "{method: PUT, target: /v2/a%20b/c?x=1&y=2, body: {a: 1}}"
    code, _, err = check_text(ASSIGNS + ASSIGNED.replace("SENT", sent))
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        ("{method: POST}", "method sent is 'PUT', expected 'POST'"),
        ("{target: /v2/}", "target sent is '/v2/a%20b/c?x=1&y=2', expected '/v2/'"),
        ("{body: text}", "body sent is b'{\"a\": 1}', expected 'text'"),
    ],
)
def test_a_case_tells_what_was_sent_instead(check_text: Check, sent: str, fault: str) -> None:
    code, out, _ = check_text(ASSIGNS + ASSIGNED.replace("SENT", sent))
    assert code == 1
    assert fault in out


def test_a_case_meets_the_schemas(check_text: Check) -> None:
    case = (
        "tests:\n- name: wrong\n  request: {method: PUT, headers: {X-Count: '1'}, body: {id: 1}}\n"
        "  expect: {status: 400}\n"
        "- name: not served\n  request: {method: GET}\n  expect: {status: 405}\n"
        "- name: right\n  request: {method: PUT, headers: {X-Count: '1'}, body: {id: 1, name: a}}\n"
        "  expect: {status: 200, output: [application/json, 'true', {id: 1, name: a}]}\n"
    )
    script = (
        "return [request.headers['content-type'], request.headers['x-flag'], json.loads(request.body)]"
    )
    code, out, err = check_text(route(script=script, more=SPEC + case))
    assert (code, err) == (0, "")
    assert out.endswith("1 file, 3 tests, 0 failed\n")


@pytest.mark.parametrize(
    ("authorization", "principal", "status"),
    [
        ("auth: default", None, 200),
        ("auth: default", "null", 401),
        ("auth: default", "{name: ann}", 200),
        ("auth: default", "{name: ann, kind: jwt}", 200),
        ("auth: none", "null", 200),
        ("auth: token", "{name: ann, kind: jwt}", 401),
        ("auth: token", "{name: ann, kind: token}", 200),
        ("auth: jwt", None, 200),
        ("auth: jwt", "{name: ann}", 200),
        ("auth: jwt", "{name: ann, kind: token}", 401),
        ("auth: jwt, scopes: [a]", "{name: ann, scopes: [b]}", 403),
        ("auth: jwt, scopes: [a]", "{name: ann, scopes: [a, b]}", 200),
        ("auth: default, groups: [g]", "{name: ann, groups: [h]}", 403),
        ("auth: default, groups: [g]", "{name: ann, groups: [g]}", 200),
    ],
)
def test_a_case_that_says_who_calls_meets_the_authorization(
    check_text: Check, authorization: str, principal: str | None, status: int
) -> None:
    caller = "" if principal is None else f", principal: {principal}"
    case = f"tests:\n- name: asks\n  request: {{method: GET{caller}}}\n  expect: {{status: {status}}}\n"
    text = route(script="return 'x'", more=case).replace("auth: none", authorization)
    assert check_text(text)[::2] == (0, "")


@pytest.mark.parametrize("script", ["return 'x'", "await callout(endpoint='up', path='/')"])
@pytest.mark.parametrize(("auth", "hinted"), [("token", True), ("default", True), ("none", False)])
def test_a_case_that_expects_a_refusal_and_names_no_caller_is_told_how_to(
    check_text: Check, script: str, auth: str, hinted: bool
) -> None:
    more = "tests:\n- name: asks\n  request: {method: GET}\n  expect: {status: 403}\n"
    code, out, _ = check_text(route(script=script, more=more, auth=auth))
    assert code == 1
    assert ("authorization was skipped: add to its request `principal: null`" in out) is hinted


@pytest.mark.parametrize("auth", ["token", "default", "jwt"])
def test_a_case_that_expects_401_is_sent_by_an_unknown_caller(check_text: Check, auth: str) -> None:
    more = "tests:\n- name: asks\n  request: {method: GET}\n  expect: {status: 401}\n"
    assert check_text(route(script="return 'x'", more=more, auth=auth))[::2] == (0, "")


def test_a_case_that_repeats_its_request_meets_the_rate_limit(check_text: Check) -> None:
    more = (
        "rate_limit: {count: 2, seconds: 60}\n"
        "tests:\n- name: asks\n  request: {method: GET, repeat: 3}\n"
        "  expect: {status: 429, response_headers: {RateLimit-Remaining: '0'}}\n"
    )
    text = route(script="return 'x'", more=more)
    assert check_text(text)[::2] == (0, "")
    _, out, _ = check_text(text.replace("repeat: 3", "repeat: 2"))
    assert "FAILED /r: asks: status is 200, expected 429" in out
    _, out, _ = check_text(text.replace("status: 429", "status: 200").replace("'0'", "'1'"))
    assert "status is 429 (too_many_requests: at most 2 requests in 60 seconds" in out
    assert "response header RateLimit-Remaining is '0', expected '1'" in out


def test_a_case_may_expect_what_the_script_refuses(check_text: Check) -> None:
    more = "tests:\n- name: asks\n  request: {method: GET}\n  expect: {status: 403}\n"
    assert check_text(route(script="raise HTTPError(403)", more=more, auth="token"))[::2] == (0, "")


def test_a_case_passes_every_step_of_its_route(check_text: Check) -> None:
    more = (
        "limits: {max_body: 3}\nrate_limit: {count: 1, seconds: 60}\n"
        "tests:\n- name: too large\n  request: {method: PUT, body: four}\n  expect: {status: 413}\n"
        "- name: fresh counters\n  request: {method: PUT, body: abc}\n  expect: {output: abc}\n"
        "- name: refused by files\n  request: {method: PUT, body: '/'}\n  expect: {status: 404}\n"
    )
    script = (
        "path = request.body.decode()\n"
        "if path.startswith('/'):\n    await files.stat('/nothing')\nreturn path"
    )
    assert check_text(route(script=script, more=more))[::2] == (0, "")


def test_a_script_that_fails_fails_its_case_whatever_status_is_expected(check_text: Check) -> None:
    more = "tests:\n- name: fails\n  request: {method: GET}\n  expect: {status: 500}\n"
    code, out, _ = check_text(route(script="return 1 / 0", more=more))
    assert code == 1
    assert "FAILED /r: fails: it failed at x.yaml:4: ZeroDivisionError: division by zero" in out


@pytest.mark.parametrize(
    ("script", "warned"),
    [
        ("import os\nos.remove(json.loads(request.body)['filepath'])", True),
        ("with open(request.params['f'][0]) as f:\n    return f.read()", True),
        ("async with files.open(json.loads(request.body)) as f:\n    return await f.read()", False),
        ("with open('/etc/hostname') as f:\n    return f.read()", False),
    ],
)
def test_a_script_that_may_take_a_path_from_the_request_is_pointed_out(
    check_text: Check, script: str, warned: bool
) -> None:
    code, _, err = check_text(route(script=script))
    assert code == 0
    assert err.startswith("warning: x.yaml:3: this script opens or removes files") == warned


RULED = """
name: ruled
upstreams: [up]
hosts: ['*.example']
when: {headers: {X-Version: '2'}}
allow: [192.0.2.0/24]
proxy: {path: /a}
request_headers: {set: {X-User: '{principal}', X-From: '{remote}'}, remove: [Cookie]}
response_headers: {set: {X-Id: '{request_id}'}, remove: [Server]}
tests:
- name: passes
  request: {method: GET, headers: {X-Version: '2', Cookie: a, X_User: root}, principal: {name: ann}}
  upstream: {headers: {Server: up}}
  expect:
    headers: {X-User: ann, X-From: 192.0.2.1, Cookie: null, X_User: null, Host: www.example}
    response_headers: {X-Id: '0000000000000000', Server: null}
- name: another host
  request: {method: GET, host: 'example:80', headers: {X-Version: '2'}}
  expect: {status: 404}
- name: another header
  request: {method: GET, host: a.example}
  expect: {status: 404}
- name: another network
  request: {method: GET, host: 'A.example.', remote: 192.0.3.1, headers: {X-Version: '2'}}
  expect: {status: 403, response_headers: {X-Id: null}}
---
redirect: 'https://new.example/{id}'
proxy: {path: '/old/{id}', authorization: {auth: none}}
tests:
- name: leads to the new place
  request: {method: GET, resources: {id: a b}, params: {x: ['1']}}
  expect: {status: 308, response_headers: {Location: 'https://new.example/a%20b?x=1'}}
"""


def test_a_case_has_a_host_and_an_address_and_sees_changed_headers(check_text: Check) -> None:
    code, out, err = check_text(RULED)
    assert (code, err) == (0, "")
    assert "any method *.example/a when x-version -> up (" in out
    assert "any method /old/{id} -> 308 https://new.example/{id} (" in out
    assert out.endswith("5 tests, 0 failed\n")


def test_a_case_that_needs_no_header_is_told_of_it(check_text: Check) -> None:
    text = RULED.replace("Cookie: null", "Cookie: a").replace("remote: 192.0.3.1", "remote: nowhere")
    code, _, err = check_text(text)
    assert code == 1
    assert "remote` must be an IP address" in err
    code, out, _ = check_text(text.replace("nowhere", "192.0.3.1"))
    assert code == 1
    assert "header Cookie is None, expected 'a'" in out


def test_a_response_that_violates_its_schema_fails_a_case(check_text: Check) -> None:
    schema = "spec: [{method: GET, schema: {response: {body: {required: [id]}}}}]\n"
    text = route("/r", more=schema).replace("[]", "[up]", 1)
    case = "tests:\n- {name: the case, request: {method: GET}, upstream: {body: BODY}, expect: {}}\n"
    assert check_text(text + case.replace("BODY", "{id: 1}"))[0] == 0
    code, out, _ = check_text(text + case.replace("BODY", "{name: a}"))
    assert code == 1
    assert 'the response violates its schema: the body "id" is a required property' in out
