"""The cases: which contestants are compared over what, in the order of the run. All sizes are here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.appends import Appends
from bench.contestants import (
    Bare,
    Contestant,
    Durability,
    Ours,
    OursAsStarted,
    OursProxy,
    OursTls,
)
from bench.entrants import Case, Entrant, probing, proxying, serving
from bench.inputs import MIB, Sizes, Sources
from bench.listing import Pages, WholeList
from bench.load import Download, Fetch, Json, Load, Refusal, Upload, Wrk
from bench.nginx import Nginx, NginxListing, NginxProxy, NginxRefusing, NginxStatic
from bench.peers import Copyparty, Rclone, Tus
from bench.probes import batches, dd

OURS = "gateway"
OURS_2 = "gateway, 2 processes"
HOOK = "gateway, OnFileUploading"
HOOKS = "gateway, both hooks"
HOOKS_2 = "gateway, both hooks, 2 processes"
STARTED = "gateway, as the README starts it"
NGINX = "nginx"
LOOP = "bare aiohttp"
AIOFILES = "bare aiohttp, aiofiles"
COPYPARTY = "copyparty"
RCLONE = "rclone webdav"
RCLONE_S3 = "rclone s3"
TUS = "@tus/server"
DD = "dd conv=fsync"
DISK = "disk, batches of 64"
DISK_SINGLE = "disk, one by one"
OURS_PUT = "gateway, one PUT"
OURS_PAGES = "gateway, pages of 1,000"
NGINX_LIST = "nginx, autoindex"
OURS_DIGEST = "gateway, --digest sha256"
OURS_NO_DIGEST = "gateway, --digest none"

MANY = (1, 16, 64)
"""Connections of the cases with small requests."""


Make = Callable[[Path], Contestant]


def _ours(*handlers: str, durability: Durability = "none", processes: int = 1) -> Make:
    return lambda folder: Ours(folder, durability, handlers, processes=processes)


def _nginx(folder: Path) -> Contestant:
    return Nginx(folder, "auto")


def _nginx_single(folder: Path) -> Contestant:
    return Nginx(folder, "1")


def _rclone_s3(folder: Path) -> Contestant:
    return Rclone(folder, "s3")


def _aiofiles(folder: Path) -> Contestant:
    return Bare(folder, "aiofiles")


def _all(load: Load, *pairs: tuple[str, Make]) -> tuple[Entrant, ...]:
    return tuple(serving(name, make, load) for name, make in pairs)


def big(sizes: Sizes, sources: Sources) -> Case:
    load = Upload(sources.file(sizes.big))
    who = _all(load, (OURS, _ours()), (NGINX, _nginx), (RCLONE, Rclone), (COPYPARTY, Copyparty),
               (LOOP, Bare), (AIOFILES, _aiofiles))  # fmt: skip
    return Case(
        "big", f"One PUT of {_size(sizes.big)}, nothing synced, tmpfs", "memory", "bytes", who, sizes.big
    )


def parallel(sizes: Sizes, sources: Sources) -> Case:
    load = Upload(sources.file(sizes.part), copies=8)
    who = _all(load, (OURS, _ours()), (NGINX, _nginx), (COPYPARTY, Copyparty), (LOOP, Bare))
    title = f"8 PUTs of {_size(sizes.part)} at once, nothing synced, tmpfs"
    return Case("parallel", title, "memory", "bytes", who, 8 * sizes.part)


def big_synced(sizes: Sizes, sources: Sources) -> Case:
    source = sources.file(sizes.big)
    who = (serving(OURS, _ours(durability="full"), Upload(source)), probing(DD, partial(dd, source)))
    return Case(
        "big-synced", f"One PUT of {_size(sizes.big)}, synced, disk", "disk", "bytes", who, sizes.big
    )


def appends(sizes: Sizes, sources: Sources) -> Case:
    source, piece = sources.file(sizes.big), 8 * MIB
    who = _all(Appends(source, piece), (OURS, _ours()), (TUS, Tus))
    who += _all(Upload(source), (OURS_PUT, _ours()))
    title = f"{_size(sizes.big)} in appends of {_size(piece)}, nothing synced, tmpfs"
    return Case("appends", title, "memory", "bytes", who, sizes.big)


def appends_synced(sizes: Sizes, sources: Sources) -> Case:
    source, piece = sources.file(sizes.big), 8 * MIB
    who = _all(Appends(source, piece), (OURS, _ours(durability="full")))
    who += _all(Upload(source), (OURS_PUT, _ours(durability="full")))
    title = f"{_size(sizes.big)} in appends of {_size(piece)}, each synced, disk"
    return Case("appends-synced", title, "disk", "bytes", who, sizes.big)


def append(sizes: Sizes, sources: Sources) -> Case:
    load = Appends(sources.file(16 * MIB), 64 << 10, counts="requests")
    who = _all(load, (OURS, _ours()), (TUS, Tus))
    return Case("append", "Appends of 64 KiB, nothing synced, tmpfs", "memory", "requests", who)


def append_synced(sizes: Sizes, sources: Sources) -> Case:
    load = Appends(sources.file(16 * MIB), 64 << 10, counts="requests")
    who = _all(load, (OURS, _ours(durability="full")))
    who += (probing(DISK_SINGLE, partial(batches, seconds=sizes.seconds, size=1)),)
    return Case("append-synced", "Appends of 64 KiB, each synced, disk", "disk", "requests", who)


def digest_small(sizes: Sizes, sources: Sources) -> Case:
    load = Wrk(4096, 64, sizes.seconds)
    who = _all(load, (OURS_DIGEST, _digest("sha256")), (OURS_NO_DIGEST, _digest("none")))
    title = f"PUTs of 4 KiB over {_connections(64)} with a digest and without, nothing synced, tmpfs"
    return Case("digest-small", title, "memory", "requests", who)


def digest_big(sizes: Sizes, sources: Sources) -> Case:
    load = Upload(sources.file(sizes.big))
    who = _all(load, (OURS_DIGEST, _digest("sha256")), (OURS_NO_DIGEST, _digest("none")))
    title = f"One PUT of {_size(sizes.big)} with a digest and without, nothing synced, tmpfs"
    return Case("digest-big", title, "memory", "bytes", who, sizes.big)


def _digest(name: str) -> Make:
    return lambda folder: Ours(folder, "none", flags=("--digest", name))


def listing(sizes: Sizes, sources: Sources) -> Case:
    who = _all(Pages(sizes.listed), (OURS_PAGES, _listing))
    who += _all(WholeList(sizes.listed), (NGINX_LIST, lambda folder: NginxListing(folder, "1")))
    title = f"A list of a folder of {sizes.listed:,} files, tmpfs"
    return Case("listing", title, "memory", "requests", who)


def _listing(folder: Path) -> Contestant:
    return Ours(folder, "none", flags=("--listing",))


def chunked(sizes: Sizes, sources: Sources) -> Case:
    load = Upload(sources.file(sizes.middle), chunked=True)
    who = _all(load, (OURS, _ours()), (NGINX, _nginx), (LOOP, Bare))
    title = f"One chunked PUT of {_size(sizes.middle)}, nothing synced, tmpfs"
    return Case("chunked", title, "memory", "bytes", who, sizes.middle)


def tls(sizes: Sizes, sources: Sources) -> Case:
    load, file = Upload(sources.file(sizes.middle)), sources.certificate()
    who = _all(load, (OURS, lambda folder: OursTls(folder, file)),
               (NGINX, lambda folder: Nginx(folder, "auto", file)))  # fmt: skip
    title = f"One PUT of {_size(sizes.middle)} over TLS, nothing synced, tmpfs"
    return Case("tls", title, "memory", "bytes", who, sizes.middle)


def small(connections: int, sizes: Sizes, sources: Sources) -> Case:
    load = Wrk(4096, connections, sizes.seconds)
    who = _all(load, (OURS, _ours()), (HOOK, _ours("uploading")), (LOOP, Bare), (COPYPARTY, Copyparty),
               (NGINX, _nginx_single))  # fmt: skip
    if connections == 64:
        who += _all(load, (OURS_2, _ours(processes=2)), (HOOKS, _ours("uploading", "uploaded")))
        who += _all(load, (AIOFILES, _aiofiles), (RCLONE, Rclone), (RCLONE_S3, _rclone_s3), (TUS, Tus))
    title = f"PUTs of 4 KiB over {_connections(connections)}, nothing synced, tmpfs"
    return Case(f"small-{connections}", title, "memory", "requests", who)


def small_synced(sizes: Sizes, sources: Sources) -> Case:
    load, both = Wrk(4096, 64, sizes.seconds), ("uploading", "uploaded")
    who = _all(load, (HOOKS, _ours(*both, durability="full")),
               (HOOKS_2, _ours(*both, durability="full", processes=2)),
               (OURS, _ours(durability="full")), (STARTED, OursAsStarted))  # fmt: skip
    who += (probing(DISK, partial(batches, seconds=sizes.seconds)),)
    title = f"PUTs of 4 KiB over {_connections(64)}, synced, disk"
    return Case("small-synced", title, "disk", "requests", who)


def started(sizes: Sizes, sources: Sources) -> Case:
    load = Wrk(4096, 1, sizes.seconds)
    probe = probing(DISK_SINGLE, partial(batches, seconds=sizes.seconds, size=1))
    title = f"PUTs of 4 KiB over {_connections(1)}, synced, disk"
    return Case("started", title, "disk", "requests", (*_all(load, (STARTED, OursAsStarted)), probe))


def medium(sizes: Sizes, sources: Sources) -> Case:
    load = Wrk(MIB, 16, sizes.seconds, ring=512)
    who = _all(load, (OURS, _ours()), (NGINX, _nginx), (LOOP, Bare))
    title = f"PUTs of 1 MiB over {_connections(16)}, nothing synced, tmpfs"
    return Case("medium", title, "memory", "requests", who, 1024 * MIB)


def refusal(sizes: Sizes, sources: Sources) -> Case:
    load = Refusal(sources.file(sizes.part), sizes.refusals)
    token = lambda folder: Ours(folder, "full", flags=("--auth", "token"))  # noqa: E731
    who = _all(load, ("gateway, --auth token", token), ("gateway, OnFileUploading", _ours("refusing")),
               (NGINX, lambda folder: NginxRefusing(folder, "1")))  # fmt: skip
    return Case(
        "refusal", "Refusing a client that sends Expect: 100-continue", "memory", "requests", who
    )


def proxied(sizes: Sizes, sources: Sources) -> Case:
    load = Upload(sources.file(sizes.middle))
    who = (proxying(OURS, OursProxy, load), proxying(NGINX, NginxProxy, load))
    title = f"Proxying one PUT of {_size(sizes.middle)} to nginx, tmpfs"
    return Case("proxied", title, "memory", "bytes", who, sizes.middle)


def proxied_json(connections: int, sizes: Sizes, sources: Sources) -> Case:
    load = Json(4096, connections, sizes.seconds)
    who = (proxying(OURS, OursProxy, load), proxying(NGINX, NginxProxy, load))
    over = _connections(connections)
    title = f"Proxying POSTs of 4 KiB of JSON with a response of 4 KiB, over {over}"
    return Case(f"json-{connections}", title, "memory", "requests", who)


def get_big(sizes: Sizes, sources: Sources) -> Case:
    load = Download(sources.file(sizes.big))
    who = _all(load, (OURS, _downloads), (NGINX, lambda folder: NginxStatic(folder, "auto")))
    return Case("get-big", f"One GET of {_size(sizes.big)}, tmpfs", "memory", "bytes", who, sizes.big)


def get(connections: int, sizes: Sizes, sources: Sources) -> Case:
    load = Fetch(4096, connections, sizes.seconds)
    who = _all(load, (OURS, _downloads), (NGINX, lambda folder: NginxStatic(folder, "1")), (LOOP, Bare))
    title = f"GETs of 4 KiB over {_connections(connections)}, tmpfs"
    return Case(f"get-{connections}", title, "memory", "requests", who)


def _downloads(folder: Path) -> Contestant:
    return Ours(folder, "none", flags=("--downloads",))


def _size(size: int) -> str:
    return f"{size // (1024 * MIB)} GiB" if size % (1024 * MIB) == 0 else f"{size // MIB} MiB"


def _connections(number: int) -> str:
    return "1 connection" if number == 1 else f"{number} connections"


CASES: dict[str, Callable[[Sizes, Sources], Case]] = {
    **{f"get-{number}": partial(get, number) for number in MANY},
    **{f"json-{number}": partial(proxied_json, number) for number in MANY},
    **{f"small-{number}": partial(small, number) for number in MANY},
    "small-synced": small_synced,
    "started": started,
    "refusal": refusal,
    "medium": medium,
    "big": big,
    "parallel": parallel,
    "big-synced": big_synced,
    "appends": appends,
    "appends-synced": appends_synced,
    "append": append,
    "append-synced": append_synced,
    "digest-small": digest_small,
    "digest-big": digest_big,
    "listing": listing,
    "chunked": chunked,
    "tls": tls,
    "proxied": proxied,
    "get-big": get_big,
}
"""How each case is made, in the order of a run."""
