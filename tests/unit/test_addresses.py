"""What a URL may be, and which addresses it may lead to."""

from ipaddress import ip_address, ip_network

import pytest

from app import addresses
from app.addresses import Url
from app.config import Settings
from app.errors import UrlRefused

#: IANA's registries of special-purpose addresses: those that are not said to be globally reachable.
UNREACHABLE = """
0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29
192.0.0.8/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24
203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
::1/128 ::/128 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:2::/48 2001:10::/28
2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10
"""
#: Those that are, and are hosts of no picture: anycast services, relays, identifiers.
SERVICES = "192.0.0.9/32 192.0.0.10/32 2001:1::1/128 2001:1::2/128 2001:3::/32 2001:4:112::/48 2001:20::/28"
MULTICAST = ["224.0.0.0/4", "ff00::/8"]
#: Site-local, IPv4-compatible and other space that is not given out.
UNASSIGNED = ["fec0::/10", "::/96", "400::/6", "4000::/3", "e000::/4"]
#: Where clouds keep the credentials of their machines.
METADATA = ["169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"]
PUBLIC = "1.1.1.1 9.255.255.255 11.0.0.0 172.15.0.1 172.32.0.1 192.0.1.1 192.31.196.1 2606:4700::1111 2620:4f:8000::1"


def load(*networks: str, allow_urls: bool = True) -> Settings:
    allowed = tuple(ip_network(network) for network in networks)
    return Settings(_env_file=None, allow_urls=allow_urls, url_allow_networks=allowed)


def permitted(address: str, *networks: str) -> bool:
    try:
        addresses.check(ip_address(address), settings=load(*networks))
    except UrlRefused:
        return False
    return True


@pytest.mark.parametrize("network", [*UNREACHABLE.split(), *SERVICES.split(), *MULTICAST, *UNASSIGNED])
def test_no_network_for_special_purposes_is_public(network: str) -> None:
    whole = ip_network(network)

    for address in (whole[0], whole[whole.num_addresses // 2], whole[-1]):
        assert not permitted(str(address))


@pytest.mark.parametrize("address", METADATA)
def test_no_metadata_of_a_cloud_is_public(address: str) -> None:
    assert not permitted(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_other_addresses_are_public(address: str) -> None:
    assert permitted(address)


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "168.63.129.16", "0.0.0.0", "224.0.0.1"])
@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::", "::", "64:ff9b:1::"])
def test_ipv6_hides_no_ipv4_address(prefix: str, inner: str) -> None:
    assert not permitted(f"{prefix}{inner}")


@pytest.mark.parametrize("address", ["2002:0808:0808::1", "2001:0:808:808::1", "::8.8.8.8", "64:ff9b:1::8.8.8.8"])
def test_tunnels_and_withdrawn_forms_are_refused_whatever_they_carry(address: str) -> None:
    assert not permitted(address)


@pytest.mark.parametrize("address", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_a_public_ipv4_address_is_public_as_a_network_without_ipv4_writes_it(address: str) -> None:
    assert permitted(address)


def test_an_exempted_network_is_permitted_and_nothing_beside_it() -> None:
    assert permitted("127.0.0.2", "127.0.0.2/32")
    assert permitted("fd12::7", "10.0.0.0/8", "fd12::/64")
    assert not permitted("127.0.0.1", "127.0.0.2/32")
    assert not permitted("::ffff:127.0.0.2", "127.0.0.2/32")


def test_an_address_of_one_link_is_refused_even_where_exempted() -> None:
    assert permitted("fe80::1", "fe80::/10")
    assert not permitted("fe80::1%lo", "fe80::/10")


def test_a_refusal_keeps_the_address_to_itself() -> None:
    with pytest.raises(UrlRefused) as refused:
        addresses.check(ip_address("10.20.30.40"), settings=load())

    assert "10.20.30.40" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://example.com", Url("http", "example.com", 80, "/")),
        ("HTTPS://Example.COM/A/b.JPG?c=D&e#f", Url("https", "example.com", 443, "/A/b.JPG?c=D&e")),
        ("http://example.com:8080?x", Url("http", "example.com", 8080, "/?x")),
        ("http://example.com//a?b?c", Url("http", "example.com", 80, "//a?b?c")),
        ("https://example.com/Zürich%20%2F.jpg", Url("https", "example.com", 443, "/Z%C3%BCrich%20%2F.jpg")),
        ("http://xn--bcher-kva.example/", Url("http", "xn--bcher-kva.example", 80, "/")),
        ("http://8.8.8.8:81/", Url("http", "8.8.8.8", 81, "/")),
        ("http://134744072/", Url("http", "8.8.8.8", 80, "/")),
        ("http://010.8.2056/", Url("http", "8.8.8.8", 80, "/")),
        ("http://[2606:4700:0::1111]:65535/", Url("http", "2606:4700::1111", 65535, "/")),
        ("http://a.example/@b.example:1/", Url("http", "a.example", 80, "/@b.example:1/")),
        ("http://a.example?@b.example/", Url("http", "a.example", 80, "/?@b.example/")),
        ("http://a.example#@b.example/", Url("http", "a.example", 80, "/")),
    ],
)
def test_a_url_is_taken_apart_and_accepted_again_as_it_is_written_then(url: str, parts: Url) -> None:
    assert addresses.accept(url, settings=load()) == parts
    assert addresses.accept(str(parts), settings=load()) == parts


def test_a_url_counts_as_long_as_it_is_sent() -> None:
    beginning = "http://example.com/"
    rest = addresses.MAX_URL_LENGTH - len(beginning)

    assert len(str(addresses.accept(beginning + "a" * rest, settings=load()))) == addresses.MAX_URL_LENGTH
    for longer in ("a" * (rest + 1), "ü" * (rest // 6 + 1)):
        with pytest.raises(UrlRefused, match="longer than 2048"):
            addresses.accept(beginning + longer, settings=load())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "http:example.com",
        "http:/example.com",
        "http:///example.com",
        "http://",
        "http://:80/",
        "http://.example.com/",
        "http://example..com/",
        "http://example.com./",
        "http://-a.example/",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 127}example/",
        "http://exam%70le.com/",
        "http://example.com%2f@b.example/",
        "http://bücher.example/",
        "http://example。com/",
        "http://①②⑦.0.0.1/",
        "http://\u017f.example/",
        "http://\u212a.example/",
        "http\u017f://example.com/",
        "http://a,b/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:/",
        "http://example.com:+80/",
        "http://example.com:8\u0660/",
        "http://1.2.3.4.5/",
        "http://256.256.256.256/",
        "http://example.0x7f/",
        "http://[::1",
        "http://[::1]x/",
        "http://[fe80::1%25lo]/",
        "http://[8.8.8.8]/",
        "http://[:::]/",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://@example.com/",
        "http://example.com\\@b.example/",
        "http://example.com/\\b",
        "http://example.com /",
        " http://example.com/",
        "http://example.com/\r\nX-Injected: 1",
        "http://example.com/a b",
        "http://exam\tple.com/",
        "http://example.com/\0",
        "http://example.com/\u2028",
        "http://example.com/\ud800",
        "http://example.com/\n",
    ],
)
def test_what_is_no_plain_url_of_a_picture_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        addresses.accept(url, settings=load())


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0X7F.1", "0177.0.0.01"),
        *("0", "0.0.0.0", "10.0.0.1", "169.254.169.254", "0xa9fea9fe", "2852039166", "168.63.129.16"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[0:0:0:0:0:0:0:1]", "[64:ff9b::a9fe:a9fe]"),
        *("[::127.0.0.1]", "[fd00:ec2::254]", "[2002:7f00:1::]"),
    ],
)
def test_a_host_that_is_an_address_is_refused_before_anything_is_resolved(host: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        addresses.accept(f"http://{host}/dog.jpg", settings=load())

    assert refused.value.message == UrlRefused.SENTENCE


def test_no_url_is_accepted_while_they_are_switched_off() -> None:
    with pytest.raises(UrlRefused, match="Send the picture itself"):
        addresses.accept("https://example.com/dog.jpg", settings=load(allow_urls=False))


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://Example.com:80/", "example.com"),
        ("https://example.com:80/", "example.com:80"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
    ],
)
def test_the_host_header_names_the_port_where_it_is_not_the_usual_one(url: str, authority: str) -> None:
    assert addresses.accept(url, settings=load()).authority == authority


@pytest.mark.parametrize(
    ("target", "filename"),
    [
        ("/a/dog.jpg?size=2/3", "dog.jpg"),
        ("/", None),
        ("/photos/", None),
        ("/Z%C3%BCrich%20See.jpg", "Zürich See.jpg"),
        ("/..%2F..%5cetc%00%0apasswd", "etcpasswd"),
        ("/" + "a" * 300, "a" * 255),
    ],
)
def test_the_filename_is_the_last_part_of_the_path(target: str, filename: str | None) -> None:
    assert Url("http", "example.com", 80, target).filename == filename


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/cat.jpg", "https://example.com:8443/cat.jpg"),
        ("cat.jpg", "https://example.com:8443/photos/cat.jpg"),
        ("../cat.jpg", "https://example.com:8443/cat.jpg"),
        ("?page=2", "https://example.com:8443/photos/dog.jpg?page=2"),
        ("//b.example/cat.jpg", "https://b.example/cat.jpg"),
        ("https://b.example", "https://b.example/"),
    ],
)
def test_a_redirect_is_followed_from_where_it_stands(location: str, leads_to: str) -> None:
    url = Url("https", "example.com", 8443, "/photos/dog.jpg")

    assert str(addresses.redirected(url, location, settings=load())) == leads_to


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "//127.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
        "http://example.com/",
        "//[",
        "//a b",
    ],
)
def test_a_redirect_is_checked_like_a_url(location: str) -> None:
    with pytest.raises(UrlRefused):
        addresses.redirected(Url("https", "example.com", 443, "/"), location, settings=load())


def test_a_redirect_may_take_up_encryption_and_not_give_it_up() -> None:
    url = addresses.redirected(Url("http", "example.com", 80, "/"), "https://example.com/", settings=load())

    assert url.port == 443
    with pytest.raises(UrlRefused, match="from https to http"):
        addresses.redirected(url, "http://example.com/", settings=load())
