"""A reboot may give the disk another device number: waiting handlers still get their files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import get, handlers_done, put, wait_until, write_plugin

pytestmark = pytest.mark.slow

READER = """
name: reader
event: APIGW.OnFileUploaded
retry: {{attempts: 100, backoff: 0.1, max_backoff: 0.1}}
script: |
  import os
  async def reader(event, handle):
      if not os.path.exists({ready!r}):
          raise RuntimeError("what it needs is away")
      async with files.open(event) as file:
          with open({result!r}, "wb") as result:
              result.write(await file.read())
"""


class Disk:
    """A file system in an image, which is mounted from one loop device or another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.folder.mkdir()
        self._image, self._other = folder / "image", folder / "other"
        self._devices: list[str] = []
        for image, size in ((self._image, 64 << 20), (self._other, 1 << 20)):
            with image.open("wb") as file:
                file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", str(self._image)], check=True)

    def mount(self) -> int:
        """Mount it and return its device number; skip the test where that is not possible."""
        try:
            device = self._attach(self._image)
            subprocess.run(["mount", device, str(self.folder)], check=True, capture_output=True)
        except (subprocess.CalledProcessError, OSError) as error:
            pytest.skip(f"a loop device cannot be mounted here: {error}")
        return self.folder.stat().st_dev

    def unmount(self) -> None:
        """Unmount it; the number of its device goes to another one."""
        self.close()
        self._attach(self._other)

    def close(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=False, capture_output=True)
        for device in self._devices:
            subprocess.run(["losetup", "-d", device], check=True)
        self._devices.clear()

    def _attach(self, image: Path) -> str:
        command = ["losetup", "-f", "--show", str(image)]
        attached = subprocess.run(command, check=True, capture_output=True, text=True)
        device = attached.stdout.strip()
        self._devices.append(device)
        return device


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.close()


async def test_a_handler_that_waits_over_a_change_of_the_device_number_gets_its_file(
    disk: Disk, gateway_process: StartProcess, tmp_path: Path
) -> None:
    ready, result = tmp_path / "ready", tmp_path / "result"
    plugins = write_plugin(tmp_path / "plugins", READER.format(ready=str(ready), result=str(result)))
    flags = ("--plugins", str(plugins), "--downloads", "--min-free-bytes", "0")
    directory = disk.folder / "data"
    before = disk.mount()
    gateway = gateway_process(*flags, directory=directory)
    answer = await put(gateway, "/upload/a", b"content")
    assert answer.status == 201
    upload_id = answer.json["upload_id"]

    async def has_run() -> bool:
        status = (await get(gateway, f"/-/uploads/{upload_id}")).json
        return any(handler["runs"] for handler in status["handlers"])

    await wait_until(has_run)
    etag = (await get(gateway, "/upload/a")).headers["ETag"]
    gateway.kill()
    disk.unmount()

    assert disk.mount() != before
    ready.touch()
    gateway = gateway_process(*flags, directory=directory)
    await handlers_done(gateway, upload_id)
    assert result.read_bytes() == b"content"
    assert (await get(gateway, "/upload/a")).headers["ETag"] == etag
    gateway.kill()
