"""A picture from a URL, streamed into an upload.

accept the URL → resolve, check, connect (`outbound`) → one GET → a redirect, accepted anew, or the body. Each hop has a
connection of its own, without proxies, cookies or anything else from the environment.
"""

import logging
from collections.abc import Callable

import httpcore2

from app import addresses
from app.addresses import Url
from app.config import Settings
from app.errors import DownloadFailed, FileTooLarge, TransientError
from app.incoming import IncomingUpload
from app.worker.outbound import TOO_SLOW, Outbound

logger = logging.getLogger(__name__)

#: From the first look at the URL to the last byte, redirects included.
TOTAL_TIMEOUT_S = 30.0
MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Answers in the 4xx range that mean: later.
_PASSING = frozenset({408, 425, 429})


def download(url: str, *, into: IncomingUpload, settings: Settings, report: Callable[[float], None]) -> None:
    """Fetch a picture. `report` is told the fraction that has come, if the server says the length.

    Raises `UrlRefused` for what may not be fetched, `FileTooLarge`, `DownloadFailed` for what will not change, and
    `TransientError` for what may pass. What is in `into` then is no picture.
    """
    outbound = Outbound(settings=settings, timeout_s=TOTAL_TIMEOUT_S)
    hop = addresses.accept(url, settings=settings)
    for _ in range(MAX_REDIRECTS + 1):
        location = _fetch(hop, outbound, into=into, settings=settings, report=report)
        if location is None:
            return
        hop = addresses.redirected(hop, location, settings=settings)
    raise DownloadFailed(f"The URL redirects more than {MAX_REDIRECTS} times.")


def _fetch(
    url: Url, outbound: Outbound, *, into: IncomingUpload, settings: Settings, report: Callable[[float], None]
) -> str | None:
    """One GET. Returns where it redirects to, or None once the body is in `into`."""
    origin = httpcore2.Origin(url.scheme.encode(), url.host.encode(), url.port)
    where = httpcore2.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=url.target.encode())
    headers = [
        ("Host", url.authority),
        ("User-Agent", "Darkroom"),
        ("Accept", "image/*, */*;q=0.1"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    try:
        with (
            httpcore2.HTTPConnection(origin, network_backend=outbound) as connection,
            connection.stream("GET", where, headers=headers) as response,
        ):
            location = _location(response)
            if location is None:
                _receive(response, into=into, max_bytes=settings.max_file_size, report=report)
            return location
    except httpcore2.TimeoutException as error:
        outbound.left_s(0)
        raise TransientError(TOO_SLOW) from error
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
        # Broken HTTP counts as passing: mostly it is an answer that was cut short.
        logger.warning("downloading from %s: %s: %s", url.host, type(error).__name__, error)
        raise TransientError("The server of the URL could not be reached, or broke off.") from error


def _location(response: httpcore2.Response) -> str | None:
    location = _header(response, b"location")
    if response.status not in _REDIRECTS or location is None:
        return None
    # What is no UTF-8 becomes characters that no URL may hold.
    return location.decode(errors="surrogateescape")


def _receive(
    response: httpcore2.Response, *, into: IncomingUpload, max_bytes: int, report: Callable[[float], None]
) -> None:
    _check_status(response.status)
    # It was asked for as it is. Unpacking would let a few bytes become any number.
    if (_header(response, b"content-encoding") or b"identity").lower() != b"identity":
        raise DownloadFailed("The server of the URL sends the picture compressed. Give a URL of the file itself.")
    length = int(_header(response, b"content-length") or 0)
    if length > max_bytes:
        raise FileTooLarge(f"The file is larger than {max_bytes} bytes. Send a smaller one.")
    for chunk in response.iter_stream():
        into.write(chunk)
        report(min(into.bytes / length, 1.0) if length else 0.0)


def _check_status(status: int) -> None:
    sentence = f"The server of the URL answered with status {status}."
    if status in _PASSING or status >= 500:
        raise TransientError(sentence)
    if status != 200:  # others in the 2xx range carry no picture, or a part of one
        raise DownloadFailed(sentence)


def _header(response: httpcore2.Response, name: bytes) -> bytes | None:
    return next((value for key, value in response.headers if key.lower() == name), None)
