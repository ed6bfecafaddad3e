"""Recordings' pure parts by property, and its shells against real files, sockets and programs."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import NotFound
from daemon.recordings import names
from daemon.recordings.directory import OpenFile, look_below, open_below
from daemon.recordings.links import Claims, RecordingLinks, read, sign
from daemon.recordings.look import MISSING, UNKNOWN, Look, State, Watch, is_whole
from daemon.recordings.mp3 import Mp3Cache, find_encoder
from daemon.recordings.ranges import Part, Unsatisfiable, Version, is_unchanged, wanted_part
from daemon.recordings.remote import may_reach
from daemon.recordings.sender import Sender
from daemon.security.egress import EgressPolicy

ROOT = "/var/spool/asterisk/monitor"
KEYS = [b"n" * 32, b"o" * 32]
CALL = str(uuid.UUID(int=7))


# -- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (f"{ROOT}/2026/11/1.2.wav", ("2026", "11", "1.2.wav")),
        (f"{ROOT}//a/./b.wav", ("a", "b.wav")),
        ("/elsewhere/b.wav", ("b.wav",)),
        ("2026/b.wav", ("b.wav",)),
        ("b.wav", ("b.wav",)),
        (f"{ROOT}/запись.wav", ("запись.wav",)),
        (f"{ROOT}x/b.wav", ("b.wav",)),
        *((bad, None) for bad in ("", "/", ROOT, f"{ROOT}/../x.wav", f"{ROOT}/a/../b.wav", "..", "a\nb.wav", "a\0.wav", "\ud800.wav", "a" * 256)),
        (ROOT + "/a" * 40, None),
    ],
)  # fmt: skip
def test_a_name_becomes_steps_below_the_root(name: str, parts: tuple[str, ...] | None) -> None:
    assert names.parts_of(name, ROOT) == (parts if name != ROOT else ("monitor",))


@given(st.text() | st.text("/.a\0\n").map(lambda tail: f"{ROOT}/{tail}"), st.sampled_from([ROOT, ROOT + "/", "/", ""]))
def test_no_name_gives_a_step_that_leads_out(name: str, root: str) -> None:
    parts = names.parts_of(name, root)
    for part in parts or ():
        assert part not in ("", ".", "..")
        assert "/" not in part
        assert "\0" not in part
        assert "\n" not in part


@given(st.text(max_size=300))
def test_a_name_in_a_header_is_harmless(name: str) -> None:
    safe = names.download_name(name)
    assert safe
    assert len(safe) <= 100
    assert not safe.startswith(".")
    assert safe.isascii()
    assert not set(safe) & set('"\\\r\n;/ ')


def test_types_and_endings() -> None:
    assert names.content_type("a.WAV") == "audio/wav"
    assert [names.content_type(f"a.{e}") for e in ("mp3", "ogg", "gsm", "html", "")] == [
        "audio/mpeg",
        "audio/ogg",
        "audio/x-gsm",
        *["application/octet-stream"] * 2,
    ]


# -- links ---------------------------------------------------------------------------------------------------------------

CLAIMS = st.builds(
    Claims,
    st.from_regex(r"[0-9A-Za-z_-]{1,32}", fullmatch=True),
    st.uuids().map(str),
    st.integers(0, 65_535),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.booleans(),
)


@given(CLAIMS, st.sampled_from(KEYS), st.sampled_from(["", ".wav", ".mp3"]))
def test_a_link_says_what_was_signed_by_any_key_and_is_short(claims: Claims, key: bytes, ending: str) -> None:
    text = sign(claims, key, ending)
    assert read(text, KEYS) == claims
    assert read(text, [b"x" * 32]) is None
    assert len("https://telephony.a-long-name.example.by/recordings/" + text) <= 255


@given(CLAIMS, st.data())
def test_a_changed_link_opens_nothing(claims: Claims, data: st.DataObject) -> None:
    text = sign(claims, KEYS[0])
    at = data.draw(st.integers(0, len(text) - 2))  # the last letter may carry bits that mean nothing
    other = data.draw(st.sampled_from("AQgw_-09"))
    if other != text[at]:
        assert read(text[:at] + other + text[at + 1 :], KEYS) is None


@given(st.text(max_size=250) | st.from_regex(r"[A-Za-z0-9_-]{40,150}", fullmatch=True))
def test_whatever_a_stranger_sends_is_no_link(text: str) -> None:
    assert read(text, KEYS) is None


def test_links_end_by_time_and_need_their_enterprise() -> None:
    links = RecordingLinks(KEYS, {"0367": 5}.get)
    path = links.link("0367", CALL, 1, 60, name="a.wav", mp3=True)
    assert path.endswith(".mp3")
    claims = links.read(path.removeprefix("/recordings/"))
    assert claims is not None
    assert (claims.enterprise, claims.call_id, claims.index, claims.epoch, claims.mp3) == ("0367", CALL, 1, 5, True)
    assert links.read(links.link("0367", CALL, 1, -1).removeprefix("/recordings/")) is None
    with pytest.raises(NotFound):
        links.link("9999", CALL, 1, 60)


# -- ranges ----------------------------------------------------------------------------------------------------------------

VERSION = Version(1_000, 1_700_000_000_000_000_000)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None), ("bytes=0-", Part(0, 1_000)), ("bytes=0-0", Part(0, 1)), ("bytes=999-5000", Part(999, 1_000)), ("bytes=-1", Part(999, 1_000)),
        ("bytes=-5000", Part(0, 1_000)), ("bytes=5-4", None), ("bytes=-", None), ("items=0-1", None), ("bytes=0-1,5-6", None), ("bytes=a-b", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)  # fmt: skip
def test_a_range_is_a_part_or_the_whole(header: str | None, part: Part | None) -> None:
    assert wanted_part(header, None, VERSION) == part


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-1001", "bytes=-0"])
def test_a_range_beyond_the_file_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        wanted_part(header, None, VERSION)


@given(st.text(max_size=40) | st.from_regex(r"bytes=\d{0,20}-\d{0,20}", fullmatch=True), st.integers(0, 5_000))
def test_a_part_lies_within_the_file(header: str, size: int) -> None:
    try:
        part = wanted_part(header, None, Version(size, 1))
    except Unsatisfiable:
        return
    assert part is None or 0 <= part.start < part.end <= size


def test_conditions_hold_for_the_same_file_only() -> None:
    assert wanted_part("bytes=0-1", VERSION.etag, VERSION) == Part(0, 2)
    assert wanted_part("bytes=0-1", VERSION.last_modified, VERSION) == Part(0, 2)
    for other in ('"x"', "W/" + VERSION.etag, "Sat, 01 Jan 2000 00:00:00 GMT", "nonsense"):
        assert wanted_part("bytes=0-1", other, VERSION) is None
    assert is_unchanged(f'"x", W/{VERSION.etag}', None, VERSION)
    assert is_unchanged("*", None, VERSION)
    assert is_unchanged(None, VERSION.last_modified, VERSION)
    assert not is_unchanged('"x"', VERSION.last_modified, VERSION)
    assert not is_unchanged(None, "Sat, 01 Jan 2000 00:00:00 GMT", VERSION)
    assert not is_unchanged(None, "nonsense", VERSION)


# -- whole? ------------------------------------------------------------------------------------------------------------------


def test_a_file_is_whole_when_it_stays_the_same_for_a_second() -> None:
    watch, growing, done = Watch(), Look(State.THERE, 100, 1.0), Look(State.THERE, 200, 2.0)
    looks = ((MISSING, 0), (growing, 0.5), (done, 1), (done, 1.5), (done, 2.0), (UNKNOWN, 2.5), (done, 3), (done, 4))
    assert [watch.is_stable(look, at) for look, at in looks] == [
        False, False, False, False, True, False, False, True,
    ]  # fmt: skip
    empty = Look(State.THERE, 44, 1.0)
    assert not any(watch.is_stable(empty, at) for at in range(10, 20))


def test_one_look_tells_whether_it_may_be_served_or_that_it_cannot_tell() -> None:
    there = Look(State.THERE, 100, 99.5)
    assert is_whole(there, None, 100) is False
    assert is_whole(MISSING, 50, 100) is False
    assert is_whole(there, 99, 100) is False
    assert is_whole(there, 99, 101) is True
    assert is_whole(Look(State.THERE, 100, 500.0), 99, 101) is False  # the file server's clock is ahead
    assert is_whole(Look(State.THERE, 100, 500.0), 99, 130) is True
    assert is_whole(Look(State.THERE, 100, None), 99, 101) is None


# -- files -----------------------------------------------------------------------------------------------------------------


def test_files_are_opened_below_the_root_and_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "a.wav").write_bytes(b"x" * 100)
    (tmp_path / "out.wav").write_bytes(b"y")
    (root / "l.wav").symlink_to(tmp_path / "out.wav")
    (root / "up").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to(root)
    found = open_below(str(root), ("d", "a.wav"))
    assert found is not None
    assert (os.read(found.fd, 3), found.version.size) == (b"xxx", 100)
    os.close(found.fd)
    assert look_below(str(tmp_path / "alias"), ("d", "a.wav")).size == 100
    for parts in (("l.wav",), ("up", "out.wav"), ("d",), ("nothing.wav",), ("d", "a.wav", "b.wav")):
        assert open_below(str(root), parts) is None
        assert look_below(str(root), parts) == MISSING
    assert look_below(str(tmp_path / "nowhere"), ("a.wav",)) == UNKNOWN


def test_an_http_source_may_be_private_but_neither_ours_nor_link_local() -> None:
    policy = EgressPolicy()
    assert all(may_reach(a, policy) for a in ("10.1.2.3", "192.168.1.1", "8.8.8.8", "fd00::1"))
    assert not any(may_reach(a, policy) for a in ("127.0.0.1", "::1", "169.254.169.254", "fe80::1%eth0", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1", "host"))
    assert may_reach("127.0.0.1", EgressPolicy(["127.0.0.0/8"]))


# -- sending -----------------------------------------------------------------------------------------------------------------


async def test_the_sender_sends_a_part_to_a_slow_receiver_and_notices_one_that_left(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(data)
    fd, sender = os.open(tmp_path / "f", os.O_RDONLY), Sender()
    try:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        sending = asyncio.ensure_future(sender.send(ours.fileno(), fd, 10, 2_000_000))
        got = bytearray()
        async with asyncio.timeout(60):
            while len(got) < 2_000_000:
                got += await asyncio.get_running_loop().sock_recv(theirs, 50_000)
            await sending
        assert bytes(got) == data[10:2_000_010]
        leaving = asyncio.ensure_future(sender.send(ours.fileno(), fd, 0, 3_000_000))
        await asyncio.get_running_loop().sock_recv(theirs, 10)
        theirs.close()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(leaving, 60)
        ours.close()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with pytest.raises(ConnectionError, match="shorter"):
            await asyncio.wait_for(sender.send(ours.fileno(), fd, 2_999_990, 100), 60)
        ours.close()
        theirs.close()
    finally:
        sender.stop()
        os.close(fd)


# -- mp3 -------------------------------------------------------------------------------------------------------------------


def a_wav(path: Path, seconds: int = 2) -> OpenFile:
    frames = struct.pack("<8000h", *(int(8_000 * ((n // 20) % 2 * 2 - 1)) for n in range(8_000))) * seconds
    head = (
        b"RIFF"
        + struct.pack("<I", 36 + len(frames))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 16_000, 2, 16)
        + b"data"
        + struct.pack("<I", len(frames))
    )
    path.write_bytes(head + frames)
    about = path.stat()
    return OpenFile(os.open(path, os.O_RDONLY), path.name, Version(about.st_size, about.st_mtime_ns))


@pytest.mark.skipif(find_encoder() is None, reason="neither ffmpeg nor lame is installed")
async def test_a_real_encoder_makes_mp3_of_a_wav(tmp_path: Path) -> None:
    original = a_wav(tmp_path / "a.wav")
    made = await Mp3Cache(tmp_path / "cache", find_encoder()).get("k", original)
    assert made is not None
    head = os.read(made.fd, 3)
    assert head == b"ID3" or (head[0] == 0xFF and head[1] & 0xE0 == 0xE0)
    assert 0 < made.version.size < original.version.size / 2
    os.close(made.fd)
    os.close(original.fd)


def program(text: str) -> object:
    return lambda ending, out: [sys.executable, "-c", text, out]


async def test_mp3_is_made_once_however_many_ask_and_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    count = tmp_path / "runs"
    copy = f"import sys; open({str(count)!r}, 'a').write('x'); open(sys.argv[1], 'wb').write(sys.stdin.buffer.read()[:1000])"
    cache = Mp3Cache(tmp_path / "cache", program(copy), max_bytes=2_500)  # type: ignore[arg-type]
    original = a_wav(tmp_path / "a.wav")
    for made in await asyncio.gather(*(cache.get("k", original) for _ in range(5))):
        assert made is not None
        assert os.read(made.fd, 4) == b"RIFF"
        os.close(made.fd)
    assert count.read_text() == "x"
    for key in ("l", "m", "n"):
        made = await cache.get(key, original)
        assert made is not None
        os.close(made.fd)
    assert sum(f.stat().st_size for f in (tmp_path / "cache").iterdir()) <= 2_500
    os.close(original.fd)


@pytest.mark.parametrize("text", ["import sys; sys.exit('no')", "import time; time.sleep(60)", "pass"])
async def test_where_the_program_fails_or_hangs_the_original_must_do(text: str, tmp_path: Path) -> None:
    original = a_wav(tmp_path / "a.wav")
    cache = Mp3Cache(tmp_path / "cache", program(text), encode_s=1.0)  # type: ignore[arg-type]
    assert await cache.get("k", original) is None
    assert list((tmp_path / "cache").iterdir()) == []
    assert await Mp3Cache(tmp_path / "cache", None).get("k", original) is None
    os.close(original.fd)


def test_an_encoder_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "ffmpeg" else None)
    command = find_encoder()
    assert command is not None
    assert command(".gsm", "/c/o.part")[:1] == ["/usr/bin/ffmpeg"]
    assert "gsm" in command(".gsm", "/c/o.part")
    assert "gsm" not in command(".wav", "/c/o.part")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert find_encoder() is None
