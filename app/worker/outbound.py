"""Connections to hosts that a client named: resolved once, checked, bounded in time.

httpcore asks for a connection to a name. What it gets leads to an address that was checked after resolution and is not
resolved again, so that a name cannot change its mind in between. TLS still goes by the name.
"""
# ruff: noqa: ARG002  # httpcore offers limits of its own; those here count

import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import Future
from ipaddress import ip_address
from threading import Thread
from time import monotonic
from typing import Any

import httpcore2

from app import addresses
from app.addresses import Address
from app.config import Settings
from app.errors import DownloadFailed, TransientError, UrlRefused

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0

#: A step that was given the rest of the time may end a moment before that is over.
_MOMENT_S = 0.02
TOO_SLOW = "The picture did not come from its URL in time."

#: The resolver's ways to say that there is no such name, or that it has no address.
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class Outbound(httpcore2.NetworkBackend):
    """Makes the connections of one download, until its time is over.

    What it makes raises `UrlRefused` for a host that is not public, `DownloadFailed` when the time is over, and
    httpcore's errors for what the network does.
    """

    def __init__(self, *, settings: Settings, timeout_s: float) -> None:
        self._settings = settings
        self._deadline_s = monotonic() + timeout_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address of the host that answers."""
        found = self._addresses(host)
        for address in found:
            addresses.check(address, settings=self._settings)
        for address in found[:-1]:
            try:
                return self._connect(address, port)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue  # such as an IPv6 address on a network without IPv6
        return self._connect(found[-1], port)

    def left_s(self, limit_s: float) -> float:
        """How long a step may take that has a limit of its own. Raises `DownloadFailed` when the time is over.

        A server that is so slow will be so again, and would have a process to itself each time.
        """
        left_s = self._deadline_s - monotonic()
        if left_s <= _MOMENT_S:
            raise DownloadFailed(TOO_SLOW)
        return min(left_s, limit_s)

    def _addresses(self, host: str) -> list[Address]:
        written = addresses.literal(host)
        return [written] if written is not None else resolve(host, timeout_s=self.left_s(CONNECT_TIMEOUT_S))

    def _connect(self, address: Address, port: int) -> httpcore2.NetworkStream:
        stream = httpcore2.SyncBackend().connect_tcp(str(address), port, self.left_s(CONNECT_TIMEOUT_S))
        return _Stream(stream, self)


def resolve(host: str, *, timeout_s: float) -> list[Address]:
    """All addresses of a name, in the order to try them, at least one.

    Raises `UrlRefused` if there is no such name, `TransientError` if the resolver does not say. It can be silent for
    longer than any limit of ours and cannot be interrupted: it is asked in a thread, which is left to itself then.
    """
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            answer.set_exception(error)

    Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answer.result(timeout_s)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            raise UrlRefused(UrlRefused.SENTENCE) from error
        raise TransientError("The name of the URL's host could not be resolved.") from error
    except TimeoutError as error:
        raise TransientError("The name of the URL's host was not resolved in time.") from error
    if not found:
        raise UrlRefused(UrlRefused.SENTENCE)
    return [ip_address(address[0]) for *_, address in found]


class _Stream(httpcore2.NetworkStream):
    """A connection, each of whose steps ends with the download's time at the latest."""

    def __init__(self, stream: httpcore2.NetworkStream, outbound: Outbound) -> None:
        self._stream = stream
        self._outbound = outbound

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._outbound.left_s(READ_TIMEOUT_S))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._outbound.left_s(READ_TIMEOUT_S))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            limit_s = self._outbound.left_s(CONNECT_TIMEOUT_S)
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, limit_s), self._outbound)
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise DownloadFailed("The certificate of the URL's host is not valid.") from error
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
