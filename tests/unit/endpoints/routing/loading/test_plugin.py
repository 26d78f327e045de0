"""What a routing plugin may say, and how its faults are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.plugins import PluginErrors
from tests.support import TESTS
from tests.support.routing.scripted import find, load, route

GOLDEN = TESTS / "golden" / "plugins"
HEAD = "upstreams: [up]\nproxy: {path: /a}\n"


def fault(folder: Path, text: str) -> str:
    with pytest.raises(PluginErrors) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def test_the_published_routes_load_unchanged(tmp_path: Path) -> None:
    texts = [(GOLDEN / f"{name}.yaml").read_text() for name in ("uploadToS3", "streamToTarget")]
    table = load(tmp_path, *texts)
    s3 = find(table, "/v1/uploadToS3", "PUT")
    assert s3.operation is not None
    assert (s3.route.upstreams, s3.route.auth, s3.operation.usage) == ((), "default", "uploadToS3")
    assert s3.operation.normal_codes == {200}
    assert s3.operation.defaults == {"Content-Type": "application/json"}
    assert s3.route.request_script is not None
    assert s3.route.request_script.reads_body
    stream = find(table, "/v1/streamToTarget", "PUT")
    assert (stream.route.name, stream.route.scheme) == ("PUT /v1/streamToTarget", "http")


def test_all_keys_are_understood(tmp_path: Path) -> None:
    text = """
    name: api
    upstreams: [one.internal:8080, "[::1]:80", two]
    proxy: {path: "/a/{x}/{r:path}", scheme: "https:", authorization: {auth: token}}
    target: {path: "/b/{r:path}", scheme: https}
    response_script: return response.body
    cors: {origins: ["https://a.example"], credentials: true, expose: [ETag], max_age: 5}
    rate_limit: {count: 5, seconds: 10, by: principal}
    limits: {connect: 1s, idle: 2m, script: 3, max_body: 4K}
    """
    made = find(load(tmp_path, text.replace("\n    ", "\n")), "/a/b/c", "PATCH").route
    assert (made.name, made.target, made.scheme, made.auth) == (
        "api",
        "/b/{r:path}",
        "https",
        "token",
    )
    assert made.upstreams == ("one.internal:8080", "[::1]:80", "two")
    assert made.cors is not None
    assert (made.cors.credentials, made.cors.expose, made.cors.max_age) == (True, ("ETag",), 5)
    assert made.rate is not None
    assert (made.rate.count, made.rate.seconds, made.rate.by) == (5, 10, "principal")
    assert (made.limits.connect, made.limits.max_body) == (1, 4096)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("upstreams: [up]\nproxy: {path: a}\n", "x:2: `proxy.path` must start with a slash"),
        ("upstreams: [up]\nproxy: {path: /a b}\n", "x:2: `proxy.path` must not have a blank"),
        (
            "upstreams: [up]\nproxy: {path: '/a{b}'}\n",
            "x:2: `proxy.path` is wrong in segment 1: a variable",
        ),
        (
            "upstreams: [up]\nproxy: {path: '/{a}/{a}'}\n",
            "x:2: `proxy.path` has the variable {a} more",
        ),
        (
            "upstreams: [up]\nproxy: {path: '/{a:path}/b'}\n",
            "x:2: `proxy.path` may have {a:path} at its end",
        ),
        (
            "upstreams: [up]\nproxy: {path: '/a//b'}\n",
            "x:2: `proxy.path` is wrong in segment 2: it is empty",
        ),
        ("upstreams: [up]\nproxy: {path: '/-/x'}\n", "x:2: paths below /-/ belong to the gateway"),
        (f"{HEAD}target: {{path: '/{{b}}'}}\n", "x:3: the served path has no variable {b}"),
        ("upstreams: ['http://up']\nproxy: {path: /a}\n", "x:1: an upstream is host or host:port"),
        (
            "upstreams: [0.0.0.0, b]\nproxy: {path: /a}\n",
            "x:1: 0.0.0.0 is no upstream: write `upstreams: []`",
        ),
        (f"{HEAD}spec: [{{method: GET}},\n {{method: GET}}]\n", "x:4: GET is listed twice"),
        (f"{HEAD}spec: [{{method: BREW}}]\n", "x:3: `spec.0.method` should be 'GET'"),
        (f"{HEAD}cors: {{origins: [a.example]}}\n", "x:3: an origin is like"),
        (
            f"{HEAD}cors: {{origins: ['*'], credentials: true}}\n",
            "x:3: with credentials, origins are named",
        ),
        (f"{HEAD}rate_limit: {{count: 0}}\n", "x:3: `rate_limit.count` should be greater"),
        (f"{HEAD}limits: {{max_boddy: 1}}\n", "x:3: unknown key `limits.max_boddy`"),
        (f"{HEAD}targets: {{}}\n", "x:3: unknown key `targets`: did you mean `target`?"),
        ("upstreams: [up]\n", "x:1: the key `proxy` is missing"),
        (
            f"{HEAD}request_script: |\n  a = 1\n  return )\n",
            "x:5: syntax error in the script",
        ),
        (f"{HEAD}request_script: |\n  a = '''b\n", "x:4: syntax error in the script"),
        (f"{HEAD}request_script: |\n  yield 1\n", "x:4: a script body cannot `yield`"),
        (
            "upstreams: [up]\nproxy: {path: /a, authorization: {scopes: [a], auth: none}}\n",
            "x:2: `proxy.authorization`",
        ),
        (
            f"{HEAD}spec:\n- method: PUT\n  schema:\n    request:\n      body:\n        properties:\n"
            "          a:\n            type: strin\n",
            "x:10: invalid JSON Schema: ",
        ),
        (
            f"{HEAD}spec:\n- method: PUT\n  schema:\n    request:\n      headers:\n"
            "        required: 5\n",
            "x:8: invalid JSON Schema: ",
        ),
    ],
)
def test_faults_are_told_with_their_line(tmp_path: Path, text: str, told: str) -> None:
    assert fault(tmp_path, text).startswith(told.replace("x:", "0.yaml:", 1))


def test_all_faults_of_a_route_are_told_at_once(tmp_path: Path) -> None:
    text = "upstreams: ['a b']\nproxy: {path: x}\ncors: {origins: [y]}\nrequest_script: (\n"
    assert len(fault(tmp_path, text).splitlines()) == 4


@pytest.mark.parametrize(
    ("script", "reads"),
    [
        ("return request.method", False),
        ("return [request.headers for _ in range(2)]", False),
        ("return request.body", True),
        ("def f():\n    return request.body\nreturn f()", True),
        ("def f():\n    return request.path\nreturn f()", False),
        ("other = request\nreturn other.body", True),
        ("return f(request)", True),
        ("return getattr(request, 'bo' + 'dy')", True),
        ("return 'request.body'", False),
        ("return payload.request.body", False),
        ("x = lambda: [request.path, request]\nreturn x()[1].body", True),
        ("request.path = '/a'\nrequest.path += 'b'\ndel request.headers['X']", False),
        ("request.body += b'x'", True),
        ("request.body = b'x'", True),
    ],
)
def test_whether_a_script_reads_the_body_is_seen_in_its_code(
    tmp_path: Path, script: str, reads: bool
) -> None:
    compiled = load(tmp_path, route(script=script)).routes[0].request_script
    assert compiled is not None
    assert compiled.reads_body == reads
    answers = script.replace("request", "response")
    compiled = load(tmp_path, route(answers=answers)).routes[0].response_script
    assert compiled is not None
    assert (compiled.reads_body, compiled.reads_response) == (False, reads)


def test_a_schema_of_a_variable_that_the_path_does_not_have_is_an_error(tmp_path: Path) -> None:
    schema = "spec:\n- method: GET\n  schema:\n    request:\n      path: {properties: {name: {}}}\n"
    with pytest.raises(PluginErrors) as caught:
        load(tmp_path, route("/pets/{id}", more=schema))
    assert str(caught.value).endswith(":7: the served path has no variable {name}")
