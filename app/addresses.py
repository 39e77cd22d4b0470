"""What a URL may be, and which addresses it may lead to: the guard against server-side request forgery.

A URL is taken apart once, by the strict grammar here, and connections are built from its parts: no second parser can
see another host in it. The API asks before it queues a job; the worker asks again at every hop of a download, and asks
of every address that it connects to.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from string import punctuation
from urllib.parse import quote, unquote, urljoin

from app.config import Settings
from app.errors import UrlRefused
from app.filenames import display_name

Address = IPv4Address | IPv6Address

MAX_URL_LENGTH = 2048
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<userinfo>[^/?#]*@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][^#]*)?"
    r"(?:#.*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
#: A last label for which the URL standard demands an IPv4 address: resolvers differ in what they make of it.
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")

#: The only space of IPv6 that is given out to be reached.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: Where NAT64 maps the whole of IPv4 (RFC 6052), as networks without IPv4 do for every name.
_NAT64 = IPv6Network("64:ff9b::/96")
#: What `is_global` lets through, in one of the Pythons that we run on, and is no public host: by IANA's registries of
#: special-purpose addresses, and last one that a cloud keeps for itself.
_NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments; one cloud has its metadata here
    IPv4Network("192.88.99.0/24"),  # relays from 6to4, withdrawn
    IPv6Network("2001::/23"),  # protocol assignments, and Teredo, which carries IPv4
    IPv6Network("2002::/16"),  # 6to4, which carries IPv4
    IPv6Network("3fff::/20"),  # documentation
    IPv4Network("168.63.129.16/32"),  # Azure's host, in public space
)

_FORM = "Give one such as https://example.com/picture.jpg."


@dataclass(frozen=True)
class Url:
    """A URL that may be fetched, in parts: what was checked is what is connected to."""

    #: `http` or `https`.
    scheme: str
    #: A name in lower case, or an address in its usual notation, without brackets.
    host: str
    port: int
    #: Path and query, as they are sent.
    target: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def authority(self) -> str:
        """Host and port, as in a `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def filename(self) -> str | None:
        """The last part of the path as a name for display; None when there is none."""
        return display_name(unquote(self.target.partition("?")[0]))


def accept(url: str, *, settings: Settings) -> Url:
    """Take a client's URL apart. Resolves no name; a host that is an address, in any notation, is checked at once.

    Raises `UrlRefused` when URLs are switched off, and for a URL that is not to be fetched.
    """
    if not settings.allow_urls:
        raise UrlRefused("Pictures are not fetched from URLs here. Send the picture itself.")
    if "\\" in url or " " in url or not url.isprintable():
        raise UrlRefused("The URL holds a space, a backslash or a control character. Write it percent-encoded.")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise UrlRefused(f"This is no http or https URL with a host in ASCII. {_FORM}")
    if parts["userinfo"]:
        raise UrlRefused("The URL holds a user name or a password. Give one that works without.")
    scheme = parts["scheme"].lower()
    port = int(parts["port"] or _PORTS[scheme])
    if not 1 <= port <= 65535:
        raise UrlRefused("The port of the URL is not between 1 and 65535. Give the right one.")
    host = _host(parts["host"].lower())
    if not isinstance(host, str):
        check(host, settings=settings)
    # Only what lies outside ASCII is encoded: the rest is sent as the client wrote it.
    target = quote("/" + (parts["target"] or "").removeprefix("/"), safe=punctuation)
    accepted = Url(scheme=scheme, host=str(host), port=port, target=target)
    # As it is sent, so that what was accepted once is accepted again.
    if len(str(accepted)) > MAX_URL_LENGTH:
        raise UrlRefused(f"The URL is longer than {MAX_URL_LENGTH} characters. Give a shorter one.")
    return accepted


def redirected(url: Url, location: str, *, settings: Settings) -> Url:
    """Where a redirect from `url` leads. Raises `UrlRefused`, also for one that gives up encryption.

    A client that asked for https trusts that nobody on the way chose the picture.
    """
    try:
        joined = urljoin(str(url), location)
    except ValueError:
        raise UrlRefused("The URL redirects to something that is no URL.") from None
    target = accept(joined, settings=settings)
    if (url.scheme, target.scheme) == ("https", "http"):
        raise UrlRefused("The URL redirects from https to http. Give the http URL if that is what you want.")
    return target


def check(address: Address, *, settings: Settings) -> None:
    """Raises `UrlRefused` for an address that is neither public nor in `URL_ALLOW_NETWORKS`. Does not repeat it.

    Exempted is the address as it stands, not the IPv4 address that it may carry.
    """
    # A zone id names a link of this machine.
    zoned = isinstance(address, IPv6Address) and address.scope_id is not None
    exempted = any(address in network for network in settings.url_allow_networks)
    if zoned or not (exempted or _is_public(address)):
        raise UrlRefused(UrlRefused.SENTENCE)


def literal(host: str) -> Address | None:
    """The address that a host of a `Url` is; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _host(host: str) -> str | Address:
    if host.startswith("["):
        try:
            return IPv6Address(host[1:-1])
        except ValueError:
            raise UrlRefused(f"The host of the URL is no IPv6 address. {_FORM}") from None
    try:
        # As resolvers read it: also decimal, octal, hexadecimal and short forms.
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        labels = host.split(".")
        if len(host) > 253 or _NUMERIC.fullmatch(labels[-1]) or not all(map(_LABEL.fullmatch, labels)):
            raise UrlRefused(f"The host of the URL is not well formed. {_FORM}") from None
        return host


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in _NAT64:
            return _is_public(IPv4Address(address.packed[-4:]))
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)
