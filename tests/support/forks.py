"""Processes that share what they have to import: forks of one that has imported it.

A program that calls `enter` is a process like any other. With `SOCKET` in its environment it hands
its streams, arguments, environment and folder to the process that listens there, which forks; the
fork goes on as the program, and the program itself ends as the fork does.
"""

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

SOCKET = "HRM_TESTS_FORK"
"""Variable that holds the path at which the process listens."""


@contextmanager
def forking(*program: object) -> Iterator[dict[str, str]]:
    """The environment in which `program` forks; `listen` is what it calls at its start.

    Where a system cannot fork, each program is a process of its own after all.
    """
    if not hasattr(os, "fork"):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:  # a short path, as a socket's has to be
        place = str(Path(folder) / "socket")
        with subprocess.Popen(
            [sys.executable, *map(str, program), place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield {SOCKET: place}  # and then its standard input is closed, with which it ends


def enter(main: Callable[[], object], modules: Iterable[str]) -> None:
    """What a program does: with `--listen SOCKET` it imports `modules` and forks, else it runs."""
    if sys.argv[1] == "--listen":
        for module in modules:
            import_module(module)
        listen(sys.argv[2])
        main()
    else:
        run(main)


def run(main: Callable[[], object]) -> None:
    """Run `main` here, or have a fork run it and end as that does."""
    if SOCKET not in os.environ:
        main()
        return
    given = {"argv": sys.argv, "orig": sys.orig_argv, "env": {**os.environ}, "cwd": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET])
        content = json.dumps(given).encode()
        socket.send_fds(connection, [len(content).to_bytes(4)], [0, 1, 2])
        connection.sendall(content)
        status = int(connection.makefile().read())
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


def listen(place: str) -> None:
    """Fork for each program that asks, and return in the fork; end with the standard input."""
    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as ready:
        server.bind(place)
        server.listen()
        ready.register(server, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        print("listening", flush=True)
        while True:
            if sys.stdin in [key.fileobj for key, _ in ready.select()]:
                bury()
                sys.exit()
            bury()
            connection, _ = server.accept()
            if os.fork() == 0:  # it waits for the program, and says how that ended
                break
            connection.close()
    head, streams, *_ = socket.recv_fds(connection, 4, 3)
    given = json.loads(connection.makefile("rb").read(int.from_bytes(head)))
    program = os.fork()
    if program:
        _, status = os.waitpid(program, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(given["env"])
    os.chdir(given["cwd"])
    sys.argv, sys.orig_argv = given["argv"], given["orig"]


def bury() -> None:
    """Forget the forks that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
