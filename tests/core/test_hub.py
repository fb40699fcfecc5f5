"""Fetching against a hub of our own on this machine: redirects, cuts, changes, refusals, and what is sent to whom."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core import hub
from core.encoders.cards.base import Source
from core.errors import CheckpointError, MissingDataError
from core.hub import address, fetch, place_of

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = Source(repo="owner/model", revision="abc123", file="weights.pth")


@dataclass
class Behaviour:
    """What the server does, and what it saw.

    Attributes:
        content: the bytes of the file.
        cuts: for each of the next answers, after how many bytes the connection breaks; then answers are whole.
        refusals: answers of the next requests instead.
        store: address of the host to which the bytes are moved; none = they come from the hub itself.
        ranges: whether a part of the file can be asked for.
        digest: what the hub says of the content.
        seen: path and headers of each request.
    """

    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    store: str = ""
    ranges: bool = True
    digest: str = SHA256
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def tag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


def serve(behaviour: Behaviour) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.seen.append((self.path, dict(self.headers)))
            if behaviour.refusals:
                self.send_response(behaviour.refusals.pop(0))
                self.end_headers()
                return
            if behaviour.store and self.path != "/bytes":
                self.send_response(302)
                self.send_header("Location", f"{behaviour.store}/bytes")
                self.send_header("X-Linked-ETag", f'"{behaviour.digest}"')
                self.end_headers()
                return
            self._content()

        def _content(self) -> None:
            start, size = 0, len(behaviour.content)
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            if asked and behaviour.ranges and condition == behaviour.tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= size:
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start))
            self.send_header("ETag", behaviour.tag)
            if behaviour.digest:
                self.send_header("X-Linked-ETag", f'"{behaviour.digest}"')
            self.end_headers()
            end = start + behaviour.cuts.pop(0) if behaviour.cuts else size
            self.wfile.write(behaviour.content[start:end])
            if end < size:
                self.connection.close()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def behaviour(monkeypatch, tmp_path) -> Iterator[Behaviour]:
    chosen = Behaviour()
    server = serve(chosen)
    monkeypatch.setenv("HALFSEEN_HUB", url_of(server))
    monkeypatch.setenv("HALFSEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "_PAUSE_S", 0.001)
    yield chosen
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_lies_at_its_place(behaviour, tmp_path):
    steps = []
    path = fetch(SOURCE, progress=lambda there, whole: steps.append((there, whole)))
    assert path == place_of(SOURCE) == tmp_path / "cache" / "hub" / "owner" / "model" / "abc123" / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(SOURCE) == path
    assert [request for request, _ in behaviour.seen] == ["/owner/model/resolve/abc123/weights.pth"]
    assert sorted(each.name for each in path.parent.iterdir()) == [".weights.pth.lock", "weights.pth"]


def test_a_broken_connection_is_resumed_where_it_stopped(behaviour):
    behaviour.cuts = [1000, 0, 30_000]
    assert fetch(SOURCE).read_bytes() == CONTENT
    starts = [headers.get("Range") for _, headers in behaviour.seen]
    assert starts == [None, "bytes=1000-", "bytes=1000-", "bytes=31000-"]


def test_a_fetch_that_was_given_up_goes_on_the_next_time(behaviour):
    behaviour.cuts = [1000, 1000, 1000, 1000, 1000]
    with pytest.raises(MissingDataError, match=r"weights\.pth: .* could not be read to its end .* goes on from there"):
        fetch(SOURCE)
    assert not place_of(SOURCE).exists()
    assert fetch(SOURCE).read_bytes() == CONTENT
    assert behaviour.seen[-1][1]["Range"] == "bytes=5000-"


def test_a_file_that_changed_meanwhile_is_begun_again(behaviour):
    behaviour.cuts = [1000] * 5
    with pytest.raises(MissingDataError):
        fetch(SOURCE)
    behaviour.content = CONTENT[::-1]
    behaviour.digest = hashlib.sha256(behaviour.content).hexdigest()
    assert fetch(SOURCE).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("note", ["", "{", "[]", "{}"])
def test_a_part_of_which_nobody_knows_the_version_is_begun_again(behaviour, note):
    place = place_of(SOURCE)
    place.parent.mkdir(parents=True)
    place.with_name(".weights.pth.partial").write_bytes(b"x" * 1000)
    place.with_name(".weights.pth.json").write_text(note)
    assert fetch(SOURCE).read_bytes() == CONTENT
    assert "Range" not in behaviour.seen[0][1]


def test_a_server_that_cannot_resume_sends_all_again(behaviour):
    behaviour.ranges, behaviour.cuts = False, [1000]
    assert fetch(SOURCE).read_bytes() == CONTENT


def test_whole_bytes_that_were_not_yet_named_are_not_lost(behaviour):
    """Killed between the last byte and the rename: nothing is left to send, which a server answers with 416."""
    place = place_of(SOURCE)
    place.parent.mkdir(parents=True)
    place.with_name(".weights.pth.partial").write_bytes(CONTENT)
    place.with_name(".weights.pth.json").write_text(json.dumps({"tag": behaviour.tag}))
    told = []
    assert fetch(SOURCE, progress=lambda there, whole: told.append(there)).read_bytes() == CONTENT
    assert told == []
    assert place.parent.joinpath("weights.pth").is_file()
    place.unlink()
    place.with_name(".weights.pth.partial").write_bytes(CONTENT[:-1] + b"x")
    place.with_name(".weights.pth.json").write_text(json.dumps({"tag": behaviour.tag}))
    assert fetch(SOURCE).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [500, 503, 429])
def test_passing_refusals_are_waited_for(behaviour, code):
    behaviour.refusals = [code, code]
    assert fetch(SOURCE).read_bytes() == CONTENT
    behaviour.refusals = [code] * 5
    with pytest.raises(MissingDataError, match=f"the hub answers {code}"):
        fetch(replace(SOURCE, revision="other"))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (401, "look at http.*/owner/model, accept the terms there, make a token and set HF_TOKEN"),
        (404, "the hub has no such file"),
    ],
)
def test_a_refusal_is_explained_at_once(behaviour, code, told):
    behaviour.refusals = [code]
    with pytest.raises(MissingDataError, match=told) as error:
        fetch(SOURCE)
    assert f"put it at {place_of(SOURCE)}" in str(error.value)
    assert len(behaviour.seen) == 1


@pytest.mark.parametrize("by", ["card", "hub", "size"])
def test_other_bytes_than_announced_are_thrown_away(behaviour, by):
    source = SOURCE
    if by == "card":
        source = replace(SOURCE, sha256="0" * 64)
    if by == "hub":
        behaviour.digest = "1" * 64
    if by == "size":
        source = replace(SOURCE, size_bytes=12)
    with pytest.raises(CheckpointError, match=r"weights\.pth: expected .* they are thrown away"):
        fetch(source)
    assert sorted(each.name for each in place_of(SOURCE).parent.iterdir()) == [".weights.pth.lock"]


def test_the_cards_digest_counts_more_than_the_hubs(behaviour):
    behaviour.digest = "1" * 64
    assert fetch(replace(SOURCE, sha256=SHA256, size_bytes=len(CONTENT))).read_bytes() == CONTENT


def test_without_any_digest_the_length_still_counts(behaviour):
    behaviour.digest = ""
    assert fetch(SOURCE).read_bytes() == CONTENT


def test_the_token_is_shown_to_the_hub_and_to_nobody_else(behaviour, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    elsewhere = Behaviour(digest="")
    store = serve(elsewhere)
    behaviour.store = url_of(store)
    assert fetch(SOURCE).read_bytes() == CONTENT
    assert [headers.get("Authorization") for _, headers in behaviour.seen] == ["Bearer secret"]
    assert [headers.get("Authorization") for _, headers in elsewhere.seen] == [None]
    fetch(Source(url=f"{url_of(store)}/a", file="a.pth"))
    assert [headers.get("Authorization") for _, headers in elsewhere.seen] == [None, None]
    store.shutdown()
    store.server_close()


def test_the_token_is_shown_again_where_the_hub_sends_on_to_itself(behaviour, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    behaviour.store = hub.os.environ["HALFSEEN_HUB"]
    assert fetch(SOURCE).read_bytes() == CONTENT
    assert [headers.get("Authorization") for _, headers in behaviour.seen] == ["Bearer secret"] * 2


def test_the_hubs_digest_survives_a_redirect(behaviour):
    store = serve(Behaviour(digest="", content=CONTENT[:-1] + b"x"))
    behaviour.store = url_of(store)
    with pytest.raises(CheckpointError, match=f"sha256 {SHA256}"):
        fetch(SOURCE)
    store.shutdown()
    store.server_close()


def test_two_who_want_the_same_file_fetch_it_once(behaviour):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch, [SOURCE] * 4))
    assert set(paths) == {place_of(SOURCE)}
    assert len(behaviour.seen) == 1


@pytest.mark.parametrize("value", ["1", "true", "ON", " yes "])
def test_offline_asks_nobody(behaviour, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(MissingDataError, match=r"the network is forbidden .* Fetch weights\.pth \(7 bytes\) from http"):
        fetch(replace(SOURCE, size_bytes=7))
    assert behaviour.seen == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert fetch(SOURCE).is_file()


def test_what_the_hubs_own_tools_have_fetched_is_used(behaviour, tmp_path):
    root = tmp_path / "hf" / "hub" / "models--owner--model"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc123\n")
    snapshot = root / "snapshots" / "abc123" / "weights.pth"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_bytes(b"x")
    assert fetch(SOURCE) == fetch(replace(SOURCE, revision="main")) == snapshot
    assert behaviour.seen == []


def test_a_file_on_no_hub_names_its_page(behaviour):
    source = Source(file="MRM.pth", page="https://example.org/drive")
    with pytest.raises(
        MissingDataError, match=r"MRM\.pth: is on no hub\. Fetch MRM\.pth from https://example\.org/drive"
    ):
        fetch(source)


def test_a_full_disk_is_foreseen(behaviour, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(MissingDataError, match=r"room for 512,000 bytes .* got 1,000: .* HALFSEEN_CACHE"):
        fetch(SOURCE)
    assert len(behaviour.seen) == 1


def test_a_cache_that_cannot_be_written_to_is_named(behaviour, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(
        MissingDataError, match=r"weights\.pth: expected a folder to write to at .*; set HALFSEEN_CACHE"
    ):
        fetch(SOURCE)
    assert behaviour.seen == []


def test_a_hub_that_does_not_answer_is_named(behaviour, monkeypatch):
    monkeypatch.setenv("HALFSEEN_HUB", "http://127.0.0.1:9")
    with pytest.raises(MissingDataError, match="could not be read to its end"):
        fetch(SOURCE)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_and_nothing_else(terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    progress = hub.told_on(stream, "a.pth")
    for there in (1_000_000_000, 1_500_000_000, 2_500_000_000):
        progress(there, 2_500_000_000)
    progress(3_000_000, None)
    assert stream.getvalue() == ("\ra.pth: 1.00 of 2.50 GB\ra.pth: 2.50 of 2.50 GB\n" if terminal else "")


def test_addresses(monkeypatch):
    monkeypatch.delenv("HALFSEEN_HUB", raising=False)
    assert address(SOURCE) == "https://huggingface.co/owner/model/resolve/abc123/weights.pth"
    assert address(Source(url="https://a.org/x", file="x")) == "https://a.org/x"
    assert address(Source(file="x", page="p")) == ""
