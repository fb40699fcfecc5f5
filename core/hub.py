"""Fetching a released file once: over plain HTTPS, resumed where it stopped, checked against what the hub says of it.

`HALFSEEN_CACHE` moves the folder of fetched files, `HF_TOKEN` opens gated repositories, `HF_HUB_OFFLINE=1` forbids the
network, `HALFSEEN_HUB` names another hub (a mirror). What the hub's own tools have fetched before is used where it lies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from core.encoders.cards.base import Source
from core.errors import CheckpointError, MissingDataError
from core.weights import file_sha256

HUB = "https://huggingface.co"
_TRIES = 5
_TIMEOUT_S = 30.0
_PAUSE_S = 1.0  # before the second try, doubled from one to the next
_BLOCK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may change

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and those of the whole file, where the hub says so."""


@dataclass(frozen=True)
class _Answer:
    """What a server says of a file before its bytes.

    Attributes:
        start: the byte at which the body begins.
        size: of the whole file in bytes; none = it does not say.
        sha256: of the whole file, where the hub tells it.
        tag: changes with the file.
    """

    start: int
    size: int | None
    sha256: str | None
    tag: str


def fetch(source: Source, *, progress: Progress | None = None) -> Path:
    """Give the path of a released file, fetched if it is not there yet.

    A fetch that was cut off goes on where it stopped; two processes do not fetch the same file twice; a file appears under
    its name only when it is whole and its digest is the one that the card or, failing that, the hub tells.

    Raises:
        MissingDataError: it is on no hub, the network is forbidden or does not answer, or the hub refuses.
        CheckpointError: other bytes came than were announced.
    """
    if (known := found_here(source)) is not None:
        return known
    path, url = place_of(source), address(source)
    if not url:
        raise MissingDataError(f"{source.file}: is on no hub. {by_hand(source)}")
    if os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on"):
        raise MissingDataError(f"{source.file}: the network is forbidden (HF_HUB_OFFLINE). {by_hand(source)}")
    _make_folder(source, path.parent)
    with _alone(path):
        if not path.is_file():  # another process has fetched it meanwhile
            _fetch(source, url, path, progress or (lambda there, whole: None))
    return path


def told_on(stream: TextIO, name: str) -> Progress:
    """Tell a fetch on one line of a terminal, at most twice a second; anything else than a terminal is left alone."""
    last = [0.0]

    def progress(there: int, whole: int | None) -> None:
        now, done = time.monotonic(), there == whole
        if stream.isatty() and (done or now - last[0] >= 0.5):
            last[0] = now
            of = f" of {whole / 1e9:.2f}" if whole else ""
            stream.write(f"\r{name}: {there / 1e9:.2f}{of} GB" + ("\n" if done else ""))
            stream.flush()

    return progress


def address(source: Source) -> str:
    """Give the address of a file; empty = only a person can fetch it."""
    if not source.repo:
        return source.url
    hub = os.environ.get("HALFSEEN_HUB", HUB).rstrip("/")
    parts = (source.repo, "resolve", source.revision, source.file)
    return f"{hub}/{'/'.join(urllib.parse.quote(part) for part in parts)}"


def place_of(source: Source) -> Path:
    """Give the path under which a fetched file is kept, whether it is there or not."""
    root = Path(os.environ.get("HALFSEEN_CACHE") or Path.home() / ".cache" / "halfseen")
    folder = (*source.repo.split("/"), source.revision) if source.repo else ("other",)
    return root.expanduser().joinpath("hub", *folder, source.file)


def found_here(source: Source) -> Path | None:
    """Give the path of a file that is there already, whoever has fetched it; none = it is not."""
    path = place_of(source)
    return path if path.is_file() else _fetched_by_others(source)


def by_hand(source: Source) -> str:
    """Say what to fetch and where to put it."""
    where = address(source) or source.page or "its authors"
    facts = [f"{source.size_bytes:,} bytes"] if source.size_bytes else []
    facts += [f"sha256 {source.sha256}"] if source.sha256 else []
    told = f" ({', '.join(facts)})" if facts else ""
    return f"Fetch {source.file}{told} from {where} and put it at {place_of(source)}, or pass its path as weights=PATH."


def _fetched_by_others(source: Source) -> Path | None:
    """Look where the hub's own tools keep files."""
    if not source.repo:
        return None
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    root = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{source.repo.replace('/', '--')}"
    reference = root / "refs" / source.revision
    commit = reference.read_text().strip() if reference.is_file() else source.revision
    path = root / "snapshots" / commit / source.file
    return path if path.is_file() else None


def _make_folder(source: Source, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingDataError(
            f"{source.file}: expected a folder to write to at {folder}, got: {error.strerror}; set HALFSEEN_CACHE to one "
            "that you may write to."
        ) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time fetch a file; the others wait."""
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(source: Source, url: str, path: Path, progress: Progress) -> None:
    partial, note = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.json")
    for attempt in range(1, _TRIES + 1):
        try:
            answer = _receive(source, url, partial, note, progress)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _PASSING or attempt == _TRIES:
                raise MissingDataError(_refusal(source, error)) from error
        except MissingDataError:
            raise
        except (OSError, http.client.HTTPException) as error:
            if attempt == _TRIES or getattr(error, "errno", None) == errno.ENOSPC:
                raise MissingDataError(
                    f"{source.file}: {url} could not be read to its end ({error}); what has come is kept, the next try goes "
                    f"on from there. {by_hand(source)}"
                ) from error
        time.sleep(_PAUSE_S * 2 ** (attempt - 1))
    _check(source, partial, answer, note)
    partial.replace(path)
    note.unlink(missing_ok=True)


def _receive(source: Source, url: str, partial: Path, note: Path, progress: Progress) -> _Answer:
    """Append what is missing; where the file has changed since, or the server cannot resume, begin again."""
    there = partial.stat().st_size if partial.is_file() else 0
    tag = _tag_in(note) if there else ""
    there = there if tag else 0
    try:
        response, answer = _open(url, {"Range": f"bytes={there}-", "If-Range": tag} if there else {})
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send
            raise
        error.close()
        response, answer = _open(url, {})
        if there == answer.size and file_sha256(partial) == (source.sha256 or answer.sha256):
            response.close()
            return answer
    with response:
        size = answer.size if answer.size is not None else source.size_bytes
        _check_room(source, partial, (size or 0) - answer.start)
        note.write_text(json.dumps({"tag": answer.tag, "url": url}))
        with partial.open("r+b" if answer.start else "wb") as file:
            file.seek(answer.start)
            file.truncate()
            there = answer.start
            while block := response.read(_BLOCK):
                file.write(block)
                there += len(block)
                progress(there, size)
            file.flush()
            os.fsync(file.fileno())
    if answer.size is not None and there < answer.size:
        raise http.client.IncompleteRead(b"", answer.size - there)
    return answer


def _tag_in(note: Path) -> str:
    """Read which version of the file a partial one is of; empty = nobody knows, as after a crash while it was noted."""
    try:
        return str(json.loads(note.read_text())["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follow the hub to where the bytes lie: keep what it says of the file, and show the token to no other host."""

    def __init__(self) -> None:
        self.headers: list[http.client.HTTPMessage] = []

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Make the next request."""
        self.headers.append(headers)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            _authorise(following)
        return following


def _open(url: str, headers: dict[str, str]) -> tuple[Any, _Answer]:
    request = urllib.request.Request(url, headers={"User-Agent": "halfseen", "Accept-Encoding": "identity"} | headers)
    _authorise(request)
    redirect = _Redirect()
    response = urllib.request.build_opener(redirect).open(request, timeout=_TIMEOUT_S)
    return response, _announced(response, [*redirect.headers, response.headers])


def _authorise(request: urllib.request.Request) -> None:
    """Show the token to the hub alone: a header that is not redirected is not copied to the next host."""
    token, hub = os.environ.get("HF_TOKEN", "").strip(), urllib.parse.urlsplit(os.environ.get("HALFSEEN_HUB", HUB))
    if token and urllib.parse.urlsplit(request.full_url)[:2] == hub[:2]:
        request.add_unredirected_header("Authorization", f"Bearer {token}")


def _announced(response: Any, headers: list[http.client.HTTPMessage]) -> _Answer:
    """Read what the hub and the host of the bytes say of a file."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range") or "")
    start = int(span[1]) if span and response.status == 206 else 0
    length = response.headers.get("Content-Length")
    size = int(span[2]) if span and start else int(length) if length else None
    digests = [each.get(name) or "" for each in headers for name in ("X-Linked-ETag", "ETag")]
    found = [digest for each in digests if re.fullmatch(r"[0-9a-f]{64}", digest := each.strip('"'))]
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return _Answer(start, size, found[0] if found else None, "" if tag.startswith("W/") else tag)


def _check(source: Source, partial: Path, answer: _Answer, note: Path) -> None:
    """Refuse, and remove, what is not the file that was announced."""
    told = source.sha256 or answer.sha256
    size, digest = partial.stat().st_size, file_sha256(partial) if told else None
    if digest != told or size != (source.size_bytes or size):
        partial.unlink()
        note.unlink(missing_ok=True)
        expected = f"{source.size_bytes or size:,} bytes" + (f" with sha256 {told}" if told else "")
        raise CheckpointError(
            f"{source.file}: expected {expected}, got {size:,} bytes{f' with {digest}' if digest else ''}; they are thrown "
            f"away. Try again, or from another network. {by_hand(source)}"
        )


def _check_room(source: Source, partial: Path, missing: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if missing > free:
        raise MissingDataError(
            f"{source.file}: expected room for {missing:,} bytes in {partial.parent}, got {free:,}: free some, or set "
            "HALFSEEN_CACHE to a folder on another disk."
        )


def _refusal(source: Source, error: urllib.error.HTTPError) -> str:
    if error.code in (401, 403):
        page = f"{os.environ.get('HALFSEEN_HUB', HUB).rstrip('/')}/{source.repo}" if source.repo else source.url
        return (
            f"{source.file}: the hub asks for an account (answer {error.code}), as it also does where there is nothing: look "
            f"at {page}, accept the terms there, make a token and set HF_TOKEN. {by_hand(source)}"
        )
    if error.code == 404:
        return f"{source.file}: the hub has no such file (answer 404 to {error.url}). {by_hand(source)}"
    return f"{source.file}: the hub answers {error.code} to {error.url}. {by_hand(source)}"
