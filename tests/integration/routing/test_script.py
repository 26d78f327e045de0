"""What scripts of routes are given, what their values mean, and what happens when they fail."""

from __future__ import annotations

import json
import logging
import re

import pytest

from tests.support.harness import get, raw_connection, request_head
from tests.support.routing.scripted import Serve, ask, route


@pytest.mark.parametrize(
    ("script", "status", "mime", "body"),
    [
        ("return {'a': [1]}", 200, "application/json", b'{"a": [1]}'),
        ("return []", 200, "application/json", b"[]"),
        ("return 'h\u00e9'", 200, "text/plain; charset=utf-8", "h\u00e9".encode()),
        ("return b'\\x00\\xff'", 200, "application/octet-stream", b"\x00\xff"),
        ("return 201, {'id': 1}", 201, "application/json", b'{"id": 1}'),
        ("return 302, None, {'Location': '/x'}", 302, None, b""),
        ("return None", 204, None, b""),
        ("pass", 204, None, b""),
        ("# nothing but a comment", 204, None, b""),
        ("raise HTTPError(403, {'why': 1})", 403, "application/json", b'{"why": 1}'),
        ("raise HTTPError(418, 'tea')", 418, "text/plain; charset=utf-8", b"tea"),
    ],
)
async def test_what_a_script_returns_or_raises_is_the_answer(
    serve: Serve, script: str, status: int, mime: str | None, body: bytes
) -> None:
    gateway = await serve(route(script=script))
    answer = await get(gateway, "/r")
    assert (answer.status, answer.body) == (status, body)
    if mime is not None:
        assert answer.headers["Content-Type"] == mime


async def test_a_raised_status_without_a_body_explains_itself(serve: Serve) -> None:
    gateway = await serve(route(script="raise HTTPError(405)"))
    answer = await get(gateway, "/r")
    assert answer.status == 405
    assert answer.json == {"error": "method_not_allowed", "message": "Method Not Allowed"}


@pytest.mark.parametrize(
    "script",
    [
        "return 1",
        "return 99, 'x'",
        "return 600, 'x'",
        "return 100, None",
        "return True, 'x'",
        "return 200, 'x', {'A': 'b\\r\\nSet-Cookie: c'}",
        "return {'a': object()}",
        "return (1, 2, 3, 4)",
        "raise HTTPError('a')",
        "raise ValueError('secret words')",
        "request.headers['X'] = 5",
        "raise SystemExit",
        "import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(0)",
    ],
)
async def test_what_has_no_meaning_is_a_500_with_an_id_and_its_place_in_the_log_only(
    serve: Serve, caplog: pytest.LogCaptureFixture, script: str
) -> None:
    gateway = await serve(route(script=script))
    with caplog.at_level(logging.ERROR, "gateway"):
        answer = await get(gateway, "/r")
    assert answer.status == 500
    assert answer.json["error"] == "internal"
    assert answer.headers["X-Request-Id"] in answer.json["message"]
    assert b"secret words" not in answer.body
    [record] = [one for one in caplog.records if one.getMessage().startswith("script failed")]
    fields = record.fields  # type: ignore[attr-defined]  # given as extra
    assert re.search(r"0\.yaml:\d+$", fields["place"])


async def test_a_traceback_names_the_line_inside_the_yaml(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    text = route(
        script="""
        text = '''a
          b
        '''
        def inner():
            return 1 / 0  # here
        return inner()
        """
    )
    line = next(n for n, one in enumerate(text.splitlines(), start=1) if "# here" in one)
    gateway = await serve(text)
    with caplog.at_level(logging.ERROR, "gateway"):
        await get(gateway, "/r")
    assert f'0.yaml", line {line}, in inner' in caplog.text
    assert "return 1 / 0  # here" in caplog.text


async def test_text_inside_strings_is_left_as_it_is(serve: Serve) -> None:
    script = """
    x = 1
    text = '''one
      two {x}
    '''
    joined = f'''a {
      x
    }
    b'''
    more = "long \\
    line"
    return [text, joined, more]
    """
    gateway = await serve(route(script=script))
    assert (await get(gateway, "/r")).json == ["one\n  two {x}\n", "a 1\nb", "long line"]


async def test_a_script_that_takes_too_long_is_a_504_and_others_go_on(serve: Serve) -> None:
    gateway = await serve(
        route("/slow", "await asyncio.Event().wait()", "limits: {script: 0.2}\n"),
        route("/quick", "return 'here'"),
    )
    slow = await get(gateway, "/slow")
    assert (slow.status, slow.json["error"]) == (504, "gateway_timeout")
    assert (await get(gateway, "/quick")).body == b"here"


async def test_a_script_sees_its_request(serve: Serve) -> None:
    script = """
    return {
        "method": request.method, "path": request.path, "params": request.params,
        "resources": request.resources, "header": request.headers.get("x-thing"),
        "body": request.body.decode(), "principal": request.principal, "remote": request.remote,
    }
    """
    gateway = await serve(route("/v1/{name}/{rest:path}", script, "target: {raw_path: true}"))
    answer = await ask(gateway, "POST", "/v1/a%20b/c/d%2Fe?x=1&x=2", "X-Thing: t", body=b"hello")
    assert answer.json == {
        "method": "POST",
        "path": "/v1/a b/c/d/e",
        "params": {"x": ["1", "2"]},
        "resources": {"name": "a b", "rest": "c/d/e"},
        "header": "t",
        "body": "hello",
        "principal": None,
        "remote": "127.0.0.1",
    }


async def test_a_body_is_read_before_the_script_only_where_it_uses_it(serve: Serve) -> None:
    gateway = await serve(
        route("/plain", "return request.method"), route("/reads", "return request.body")
    )
    big = request_head("POST", "/plain", "Content-Length: 99999999", "Expect: 100-continue")
    async with raw_connection(gateway) as connection:
        await connection.send(big)
        assert (await connection.line()).startswith(b"HTTP/1.1 200 ")
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("POST", "/reads", "Content-Length: 2", "Expect: 100-continue")
        )
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        await connection.line()
        await connection.send(b"ok")
        assert (await connection.answer()).body == b"ok"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(serve: Serve, chunked: bool) -> None:
    gateway = await serve(route(script="return request.body", more="limits: {max_body: 4}\n"))
    async with raw_connection(gateway) as connection:
        if chunked:
            await connection.send(
                request_head("POST", "/r", "Transfer-Encoding: chunked") + b"5\r\nabcde\r\n0\r\n\r\n"
            )
        else:
            await connection.send(
                request_head("POST", "/r", "Content-Length: 5", "Expect: 100-continue")
            )
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (413, "too_large")
    assert (await ask(gateway, "POST", "/r", body=b"abcd")).body == b"abcd"


async def test_the_response_script_changes_the_answer(serve: Serve) -> None:
    changes = """
    response.code = 202
    response.headers["X-Was"] = str(len(response.body))
    response.body = b"new"
    """
    gateway = await serve(
        route("/changed", answers=changes), route("/instead", answers="return 201, [response.code]")
    )
    changed = await get(gateway, "/changed")
    assert (changed.status, changed.headers["X-Was"], changed.body) == (202, "0", b"new")
    instead = await get(gateway, "/instead")
    assert (instead.status, instead.json) == (201, [204])


async def test_a_script_calls_a_route_of_this_gateway_in_the_name_of_the_installation(
    serve: Serve,
) -> None:
    gateway = await serve(
        route("/outer", "answer = await callout(path='/inner')\nreturn answer.json()"),
        route("/inner", "return request.principal", auth="default"),
        auth="token",
    )
    assert (await get(gateway, "/inner")).status == 401
    assert (await get(gateway, "/outer")).json == {"name": "internal", "kind": "internal"}


async def test_log_lines_of_a_script_carry_the_id_of_the_request(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    script = (
        "from gateway.telemetry import logs\n"
        "logger.info('it says %s', logs.bound_fields()['request_id'])"
    )
    gateway = await serve(route(script=script))
    with caplog.at_level(logging.INFO, "gateway"):
        answer = await get(gateway, "/r")
    assert f"it says {answer.headers['X-Request-Id']}" in caplog.text


async def test_state_is_kept_and_a_reload_swaps_the_routes_as_a_whole(serve: Serve) -> None:
    gateway = await serve(route(script="state['n'] = state.get('n', 0) + 1\nreturn state"))
    assert (await get(gateway, "/r")).json == {"n": 1}
    file = gateway.resources.settings.plugins[0] / "0.yaml"
    file.write_text(file.read_text().replace("/r", "/new").replace("upstreams", "name: x\nupstreams"))
    await gateway.reload()
    assert (await get(gateway, "/r")).status == 404
    assert (await get(gateway, "/new")).json == {"n": 1}
    file.write_text("proxy: {}\n")
    await gateway.reload()
    assert (await get(gateway, "/new")).json == {"n": 2}


async def test_statuses_outside_the_normal_ones_are_logged_and_counted_and_still_answered(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await serve(
        route(
            script="return int(request.params['code'][0]), None",
            more="spec: [{method: GET, schema: {response: {normal: {codes: [200]}}}}]\n",
        )
    )
    with caplog.at_level(logging.WARNING, "gateway"):
        assert (await get(gateway, "/r?code=200")).status == 200
        assert "does not list as normal" not in caplog.text
        assert (await get(gateway, "/r?code=503")).status == 503
    assert "does not list as normal" in caplog.text
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    assert 'gateway_abnormal_answers_total{route="GET /r"} 1.0' in metrics


async def test_the_start_says_what_each_route_does(serve: Serve) -> None:
    gateway = await serve(route(script="return 1", more="spec: [{method: PUT}]\n", auth="default"))
    [line] = [line for line in gateway.describe() if "/r" in line]
    assert line.startswith("PUT /r -> scripts (")
    assert line.endswith("0.yaml:2), authorization default")


async def test_a_published_shape_of_script_runs(serve: Serve) -> None:
    script = """
    import os
    payload = MU(json.loads(request.body))
    async def producer(name):
        yield name
        yield "!"
    if request.method != PUT:
        raise HTTPError(405)
    words = [word async for word in producer(os.path.basename(payload.filepath))]
    async with asyncio.timeout(5):
        return dict(words=words)
    """
    gateway = await serve(route(script=script))
    body = json.dumps({"filepath": "/a/b"}).encode()
    assert (await ask(gateway, "PUT", "/r", body=body)).json == {"words": ["b", "!"]}
    assert (await ask(gateway, "POST", "/r", body=body)).status == 405
