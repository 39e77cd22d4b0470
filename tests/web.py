"""A web server that answers whatever a test says, byte for byte, and a resolver that knows what a test says."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from itertools import takewhile
from typing import Any

#: Writes the answer to a request for a target.
Answer = Callable[[socket.socket, str], None]


class Web:
    """What a running server has seen."""

    def __init__(self, port: int) -> None:
        self.port = port
        #: The lines of each request's head.
        self.heads: list[list[str]] = []
        #: The address under which each connection came.
        self.reached: list[str] = []
        #: Set once a client has closed its connection to a handler that waited for it.
        self.left = threading.Event()

    def wait_for_the_client_to_leave(self, connection: socket.socket) -> None:
        """Block until it closes its side."""
        connection.settimeout(20)
        with suppress(ConnectionResetError):  # it left what we sent unread
            while connection.recv(65536):
                pass
        self.left.set()


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; `_` in a header's name stands for a hyphen. A `Content_Length` replaces the true one."""
    lines = {"Content_Length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


@contextmanager
def serve(answer: Answer | bytes, *, host: str = "0.0.0.0", tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Serve in threads, on a port of the system's choice, reachable at every address of this machine."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            web.reached.append(self.request.getsockname()[0])
            try:
                connection = tls.wrap_socket(self.request, server_side=True) if tls else self.request
                _answer(connection)
            except OSError:  # the client has gone, or did not like our certificate
                pass

    def _answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            head = [line.decode().rstrip() for line in takewhile(bytes.strip, lines)]
            web.heads.append(head)
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(connection, head[0].split(" ")[1])

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        web = Web(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()


class Names:
    """Stands in for `socket.getaddrinfo`: a name has the answers it was given, one after the other, then the last."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str] | Exception]] = {}
        #: Every name that was asked for.
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: bytes | str, port: int | None, *args: Any, **kwargs: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if _is_address(name):
            return self._real(name, port, *args, **kwargs)
        self.asked.append(name)
        answers = self.answers.get(name, [socket.gaierror(socket.EAI_NONAME, "Name or service not known")])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [(_family(address), socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in answer]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
