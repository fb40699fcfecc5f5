"""Programs in processes of their own that start warm: forks of a server that has imported torch, and nothing of ours.

A new interpreter spends 2 to 5 s of CPU on torch, its compiler, timm and pytest before the first line of a test. A fork of
the server has them, and is else what `python -m module words` makes: its own arguments, folder, environment, streams and
signals, none of our modules, one thread, and the interpreter's own way out, exit handlers included.

What a fork cannot show stays with tests that start an interpreter: that a program imports what it needs and no more, what
libraries read of the environment when they are loaded (to ask for that is refused), and that ranks may hash strings
differently (they are forks of one server, with its seed).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ("numpy", "torch", "torch._dynamo", "timm", "pytest")
# Read when the interpreter or a library is loaded, which the server has done.
FIXED = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "CUDA_", "LD_", "MALLOC_")
_START_S = 60.0


class Outcome(NamedTuple):
    """How a program ended: its exit code, or minus the number of the signal that ended it, and what it wrote."""

    code: int
    out: str
    err: str


class Program:
    """A program that was started; `outcome` is its end, and lets go of all that it holds here."""

    def __init__(self, channel: socket.socket, out: IO[bytes], err: IO[bytes]) -> None:
        self._channel, self._written = channel, (out, err)
        self._ended: Outcome | None = None
        self.pid = self._told(_START_S)

    def _told(self, timeout_s: float) -> int:
        """Receive a number of the server; all of its few bytes come at once."""
        self._channel.settimeout(timeout_s)
        number = self._channel.recv(32)
        assert number, "the server of warm programs has ended"
        return int(number)

    def send_signal(self, number: int) -> None:
        """Signal it, unless its end was seen."""
        if self._ended is None:
            os.kill(self.pid, number)

    def outcome(self, timeout_s: float = 120.0) -> Outcome:
        """Wait for its end.

        Raises:
            TimeoutError: it has not ended; it is killed.
        """
        if self._ended is None:
            late = False
            try:
                code = self._told(timeout_s)
            except TimeoutError:
                late = True
                self.send_signal(signal.SIGKILL)
                code = self._told(_START_S)
            texts = []
            for file in self._written:
                file.seek(0)
                texts.append(file.read().decode())
                file.close()
            self._channel.close()
            self._ended = Outcome(code, *texts)
            if late:
                raise TimeoutError(f"not done in {timeout_s} s: {self._ended.err[-3000:]}")
        return self._ended


class Server:
    """Starts programs, until it is closed. Their libraries use one thread."""

    def __init__(self) -> None:
        self._programs: list[Program] = []
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(self, module: str, *words: object, folder: Path = ROOT, environment: Mapping[str, str] = {}) -> Program:
        """Start `python -m module words` in a folder, whose modules come first, with additions to this environment.

        Raises:
            ValueError: the environment differs from the server's in what is read when libraries are loaded.
        """
        wanted = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        for name in sorted(wanted.keys() | self._environment.keys()):
            if name.startswith(FIXED) and wanted.get(name) != self._environment.get(name):
                raise ValueError(
                    f"expected {name}={self._environment.get(name)}, which the server of warm programs was started with, "
                    f"got {wanted.get(name)}: start an interpreter for this program."
                )
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        ours, theirs = socket.socketpair()
        request = {
            "module": module,
            "words": [str(word) for word in words],
            "folder": str(folder),
            "environment": wanted,
        }
        with theirs:
            socket.send_fds(self._control, [b"."], [theirs.fileno(), out.fileno(), err.fileno()])
        ours.sendall(json.dumps(request).encode() + b"\n")
        self._programs.append(Program(ours, out, err))
        return self._programs[-1]

    def run(
        self,
        module: str,
        *words: object,
        folder: Path = ROOT,
        environment: Mapping[str, str] = {},
        timeout_s: float = 120.0,
    ) -> Outcome:
        """Start a program and wait for its end."""
        return self.start(module, *words, folder=folder, environment=environment).outcome(timeout_s)

    def close(self) -> None:
        """End the server, and the programs that tests left behind when they failed."""
        for program in self._programs:
            program.send_signal(signal.SIGKILL)
            program.outcome()
        self._process.kill()
        self._process.wait()
        self._control.close()


class _Request(NamedTuple):
    """What a fork is to become."""

    module: str
    words: list[str]
    folder: str
    environment: dict[str, str]


@contextlib.contextmanager
def _waking() -> Iterator[socket.socket]:
    """Give a socket that can be read when a child has ended."""
    wake, woken = socket.socketpair()
    with wake, woken:
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        yield woken
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)


def _reap(running: dict[int, socket.socket]) -> None:
    """Tell how those programs ended that have."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(OSError), running.pop(pid) as channel:  # nobody may be waiting
            channel.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _serve(control: socket.socket) -> _Request | None:
    """Fork for each request; return in the fork what it is to become, in the server None when nobody asks any more."""
    running: dict[int, socket.socket] = {}
    with control, _waking() as woken, selectors.DefaultSelector() as ready:
        for each in (control, woken):
            ready.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is woken:
                    woken.recv(4096)
                    _reap(running)
                    continue
                byte, handles, _, _ = socket.recv_fds(control, 1, 3)
                if not byte:
                    return None
                channel, *streams = socket.socket(fileno=handles[0]), *handles[1:]
                with channel.makefile() as lines:
                    request = _Request(**json.loads(lines.readline()))
                pid = os.fork()
                for stream, file in enumerate(streams, start=1):
                    if pid == 0:
                        os.dup2(file, stream)
                    os.close(file)
                if pid == 0:
                    for other in (channel, *running.values()):
                        other.close()
                    return request
                running[pid] = channel
                channel.sendall(str(pid).encode())


def _become(request: _Request) -> None:
    """Turn this fork into the program."""
    import numpy as np
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.seed()  # what these libraries draw when they are imported, a fork would have in common with all others
    np.random.seed()  # noqa: NPY002
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.path.insert(0, request.folder)
    sys.argv[1:] = request.words
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def main() -> None:
    """Be the server, or what it forks."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # of a terminal: it is for the programs, and for those who wait for them
    for name in PRELOADED:
        importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, (
        f"expected one thread after importing {PRELOADED}, got {threads}: a fork would have but one of them"
    )
    gc.freeze()  # a collection would write to, and so copy, what all programs share
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main()
