"""A script that blocks its executor is named in the log, while bytes of uploads and requests flow."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.support.harness import TIMEOUT, get, put
from tests.support.recorders import captured_log
from tests.support.routing.proxying import answer_all, upstream
from tests.support.routing.scripted import Serve, route


async def test_uploads_and_proxied_requests_go_on_while_a_script_blocks(
    serve: Serve, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    blocking = f"""
        with open({str(gate)!r}) as waits_for_a_writer:
            return waits_for_a_writer.read()
        """
    async with upstream(answer_all) as behind:
        proxied = (
            f"upstreams: ['{behind.authority}']\n"
            "proxy: {path: /api, authorization: {auth: none}}\ntarget: {path: /}\n"
        )
        gateway = await serve(route("/blocks", blocking), proxied)
        with captured_log() as lines:
            blocked = asyncio.create_task(get(gateway, "/blocks"))
            async with asyncio.timeout(TIMEOUT):
                while not any("blocks its script executor" in line["message"] for line in lines):
                    assert (await get(gateway, "/api")).status == 200
                    assert (await put(gateway, "/upload/x", b"1")).status in {200, 201}
        assert not blocked.done()
        await asyncio.to_thread(gate.write_text, "let go")
        assert (await blocked).body == b"let go"
    (named,) = [line["message"] for line in lines if "blocks its script executor" in line["message"]][:1]
    text = (tmp_path / "plugins/0.yaml").read_text().splitlines()
    line = next(number for number, row in enumerate(text, start=1) if "with open" in row)
    assert f"0.yaml:{line} blocks its script executor" in named
