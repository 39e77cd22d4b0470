"""Pictures from URLs: what is fetched, and all that is not."""

import os
import signal
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from time import monotonic
from types import FrameType

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from app.config import Settings
from app.errors import AppError, DownloadFailed, FileTooLarge, TransientError, UrlRefused
from app.storage import Storage
from app.worker import outbound
from app.worker.download import MAX_REDIRECTS, download
from tests.web import Answer, Names, response, serve

MAX_BYTES = 100_000
PICTURE = bytes(range(256)) * 300
#: The one address of this machine that URLs may lead to.
HERE = "127.0.0.2"


@dataclass
class Client:
    """Downloads into a folder."""

    folder: Path
    told: list[float] = field(default_factory=list)

    def get(self, url: str, *exempted: str) -> bytes:
        networks = tuple(ip_network(network) for network in exempted or (f"{HERE}/32",))
        settings = Settings(_env_file=None, allow_urls=True, url_allow_networks=networks, max_file_size=MAX_BYTES)
        with Storage(self.folder).incoming("picture", max_bytes=MAX_BYTES) as upload:
            download(url, into=upload, settings=settings, report=self.told.append)
            upload.finish()
            return upload.path.read_bytes()


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr("app.worker.download.TOTAL_TIMEOUT_S", 0.3)


def fails(client: Client, url: str, kind: type[AppError], *exempted: str) -> str:
    with pytest.raises(AppError) as failed:
        client.get(url, *exempted)
    assert type(failed.value) is kind
    return failed.value.message


def redirect(location: str, status: str = "302 Found") -> bytes:
    return response(b"moved", status, Location=location)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# What is fetched


def test_a_picture_is_fetched(client: Client) -> None:
    with serve(response(PICTURE)) as web:
        assert client.get(f"http://{HERE}:{web.port}/dog.jpg?size=2") == PICTURE

    (head,) = web.heads
    request, *headers = head
    assert request == "GET /dog.jpg?size=2 HTTP/1.1"
    assert dict(line.split(": ") for line in headers) == {
        "Host": f"{HERE}:{web.port}",
        "User-Agent": "Darkroom",
        "Accept": "image/*, */*;q=0.1",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def test_progress_is_told_where_the_server_says_the_length(client: Client) -> None:
    with serve(response(PICTURE)) as web:
        client.get(f"http://{HERE}:{web.port}/")

    assert client.told == sorted(client.told)
    assert client.told[-1] == 1.0


def test_a_body_without_a_length_is_fetched_to_its_end(client: Client) -> None:
    with serve(b"HTTP/1.1 200 OK\r\n\r\n" + PICTURE) as web:
        assert client.get(f"http://{HERE}:{web.port}/") == PICTURE
    assert client.told == []


def test_a_chunked_body_counts_and_not_the_length_beside_it(client: Client) -> None:
    chunks = b"6\r\npictur\r\n1\r\ne\r\n0\r\n\r\n"
    with serve(response(chunks, Content_Length="3", Transfer_Encoding="chunked")) as web:
        assert client.get(f"http://{HERE}:{web.port}/") == b"picture"
    assert max(client.told) == 1.0


def test_an_empty_body_is_left_to_the_checks_of_pictures(client: Client) -> None:
    with serve(response(b"")) as web:
        assert client.get(f"http://{HERE}:{web.port}/") == b""


def test_a_name_is_resolved_once_and_sent_as_the_host(client: Client, names: Names) -> None:
    names.answers["pictures.test"] = [[HERE]]
    with serve(response(PICTURE)) as web:
        assert client.get(f"http://pictures.test:{web.port}/") == PICTURE

    assert names.asked == ["pictures.test"]
    assert f"Host: pictures.test:{web.port}" in web.heads[0]


def test_the_next_address_is_tried_where_one_does_not_answer(client: Client, names: Names) -> None:
    names.answers["pictures.test"] = [["127.0.0.3", HERE]]
    with serve(response(PICTURE), host=HERE) as web:
        assert client.get(f"http://pictures.test:{web.port}/", "127.0.0.2/31") == PICTURE


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_fetched_from(client: Client) -> None:
    with serve(response(PICTURE), host="::1") as web:
        assert client.get(f"http://[::1]:{web.port}/", "::1/128") == PICTURE
    assert f"Host: [::1]:{web.port}" in web.heads[0]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_are_followed(status: str, client: Client) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        hop = int(target.removeprefix("/"))
        connection.sendall(redirect(str(hop + 1), status) if hop < MAX_REDIRECTS else response(PICTURE))

    with serve(answer) as web:
        assert client.get(f"http://{HERE}:{web.port}/0") == PICTURE
    assert len(web.heads) == MAX_REDIRECTS + 1


def test_proxies_and_credentials_of_the_environment_are_not_used(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine {HERE} login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve(response(b"from the proxy")) as proxy, serve(response(PICTURE)) as web:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert client.get(f"http://{HERE}:{web.port}/") == PICTURE

    assert not proxy.reached
    assert not [line for line in web.heads[0] if "authorization" in line.lower()]


# Where it may not lead


LEADS_INSIDE = [
    "http://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://2130706433:{port}/",
    "http://127.1:{port}/",
    "http://0x7f.1:{port}/",
    "file:///etc/passwd",
    "http://metadata.test:{port}/",
    "http://user:secret@127.0.0.2:{port}/",
    "gopher://127.0.0.2:{port}/",
]


@pytest.mark.parametrize("location", LEADS_INSIDE)
def test_a_redirect_to_what_is_not_public_is_refused(location: str, client: Client, names: Names) -> None:
    names.answers["metadata.test"] = [["169.254.169.254"]]

    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(redirect(location.format(port=web.port)))

    with serve(answer) as web:
        message = fails(client, f"http://{HERE}:{web.port}/", UrlRefused)

    assert web.reached == [HERE]
    assert "169.254" not in message


@pytest.mark.parametrize("url", LEADS_INSIDE)
def test_a_url_of_what_is_not_public_is_refused(url: str, client: Client, names: Names) -> None:
    names.answers["metadata.test"] = [["169.254.169.254"]]
    with serve(response(PICTURE)) as web:
        fails(client, url.format(port=web.port), UrlRefused)

    assert not web.reached


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "fe80::1%lo"])
def test_one_address_that_is_not_public_spoils_a_name(address: str, client: Client, names: Names) -> None:
    names.answers["mixed.test"] = [[HERE, address]]
    with serve(response(PICTURE)) as web:
        assert fails(client, f"http://mixed.test:{web.port}/", UrlRefused) == UrlRefused.SENTENCE

    assert not web.reached


def test_a_name_cannot_change_its_mind_after_it_was_checked(client: Client, names: Names) -> None:
    names.answers["rebinding.test"] = [[HERE], ["127.0.0.1"]]
    with serve(response(PICTURE)) as web:
        client.get(f"http://rebinding.test:{web.port}/")

    assert web.reached == [HERE]
    assert names.asked == ["rebinding.test"]


def test_a_name_is_checked_anew_at_every_hop(client: Client, names: Names) -> None:
    names.answers["rebinding.test"] = [[HERE], ["127.0.0.1"]]
    with serve(redirect("/again")) as web:
        fails(client, f"http://rebinding.test:{web.port}/", UrlRefused)

    assert web.reached == [HERE]


def test_a_name_that_does_not_exist_is_told_like_one_that_is_internal(client: Client, names: Names) -> None:
    names.answers["internal.test"] = [["10.0.0.1"]]

    assert fails(client, "http://nowhere.test/", UrlRefused) == fails(client, "http://internal.test/", UrlRefused)


def test_redirects_in_a_circle_end(client: Client) -> None:
    with serve(redirect("/")) as web:
        assert "redirects more than 5 times" in fails(client, f"http://{HERE}:{web.port}/", DownloadFailed)
    assert len(web.heads) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("location", ["http://[", "//\xff", "/a b"])
def test_a_redirect_to_nonsense_is_refused(location: str, client: Client) -> None:
    with serve(redirect("%s").replace(b"%s", location.encode("latin-1"))) as web:
        fails(client, f"http://{HERE}:{web.port}/", UrlRefused)


# What the server answers


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial Content", "300 Choices", "304 Not Modified"])
@pytest.mark.parametrize("body", [b"", b"12345"])
def test_a_status_other_than_ok_is_no_picture(status: str, body: bytes, client: Client) -> None:
    with serve(response(body, status)) as web:
        assert status[:3] in fails(client, f"http://{HERE}:{web.port}/", DownloadFailed)


@pytest.mark.parametrize("status", ["400 Bad", "401 Unauthorized", "403 Forbidden", "404 Not Found", "410 Gone"])
def test_a_refusal_of_the_server_stands(status: str, client: Client) -> None:
    with serve(response(b"<h1>secret page</h1>", status)) as web:
        message = fails(client, f"http://{HERE}:{web.port}/", DownloadFailed)

    assert message == f"The server of the URL answered with status {status[:3]}."


@pytest.mark.parametrize("status", ["408 Timeout", "429 Too Many", "500 Error", "502 Bad Gateway", "503 Unavailable"])
def test_a_trouble_of_the_server_may_pass(status: str, client: Client) -> None:
    with serve(response(b"sorry", status)) as web:
        assert status[:3] in fails(client, f"http://{HERE}:{web.port}/", TransientError)


def test_a_redirect_that_leads_nowhere_is_no_picture(client: Client) -> None:
    with serve(response(b"", "302 Found")) as web:
        assert "302" in fails(client, f"http://{HERE}:{web.port}/", DownloadFailed)


@pytest.mark.parametrize("encoding", ["gzip", "br", "x-unheard-of", "identity, gzip"])
def test_a_compressed_body_is_not_unpacked(encoding: str, client: Client) -> None:
    with serve(response(b"\x1f\x8b", Content_Encoding=encoding)) as web:
        assert "compressed" in fails(client, f"http://{HERE}:{web.port}/", DownloadFailed)


def test_a_body_that_says_it_is_too_long_is_not_read(client: Client) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(response(Content_Length=str(MAX_BYTES + 1)))
        web.wait_for_the_client_to_leave(connection)

    with serve(answer) as web:
        fails(client, f"http://{HERE}:{web.port}/", FileTooLarge)
        assert web.left.wait(10)


def endless(connection: socket.socket, target: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")


def test_an_endless_body_is_cut_at_the_limit(client: Client) -> None:
    with serve(endless) as web:
        fails(client, f"http://{HERE}:{web.port}/", FileTooLarge)


def test_a_body_shorter_than_it_says_may_come_whole_next_time(client: Client) -> None:
    with serve(response(PICTURE, Content_Length=str(len(PICTURE) + 1))) as web:
        fails(client, f"http://{HERE}:{web.port}/", TransientError)


def test_a_body_longer_than_it_says_is_read_as_far_as_it_says(client: Client) -> None:
    with serve(response(PICTURE, Content_Length="7")) as web:
        assert client.get(f"http://{HERE}:{web.port}/") == PICTURE[:7]


def test_a_connection_that_is_reset_may_hold_next_time(client: Client) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(response(PICTURE[:5], Content_Length=str(len(PICTURE))))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serve(answer) as web:
        fails(client, f"http://{HERE}:{web.port}/", TransientError)


def endless_head(connection: socket.socket, target: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Filler: " + b"x" * 8192 + b"\r\n")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", response(Content_Length="-1"), endless_head])
def test_what_is_not_http_may_pass(answer: bytes | Answer, client: Client) -> None:
    with serve(answer) as web:
        assert "broke off" in fails(client, f"http://{HERE}:{web.port}/", TransientError)


def test_nobody_at_the_port_may_pass(client: Client) -> None:
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]

    fails(client, f"http://{HERE}:{port}/", TransientError)


# How long it may take


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (response(Content_Length="9999"), b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_a_slow_drip_is_cut_when_the_time_is_over(head: bytes, drop: bytes, client: Client, quick: None) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(drop)
            threading.Event().wait(0.01)

    begin = monotonic()
    with serve(answer) as web:
        assert "in time" in fails(client, f"http://{HERE}:{web.port}/", TransientError)
    assert monotonic() - begin < 5


def test_the_time_counts_across_redirects(client: Client, quick: None) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        threading.Event().wait(0.2)
        connection.sendall(redirect("/"))

    with serve(answer) as web:
        assert "in time" in fails(client, f"http://{HERE}:{web.port}/", TransientError)
    assert len(web.heads) <= 2


def silent(connection: socket.socket, target: str) -> None:
    connection.settimeout(20)
    while connection.recv(65536):
        pass


def test_a_server_that_says_nothing_is_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "READ_TIMEOUT_S", 0.1)
    with serve(silent) as web:
        assert "in time" in fails(client, f"http://{HERE}:{web.port}/", TransientError)


def test_a_server_that_does_not_take_up_tls_is_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server((HERE, 0)) as mute:
        assert "in time" in fails(client, f"https://{HERE}:{mute.getsockname()[1]}/", TransientError)


def test_a_resolver_that_says_nothing_is_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def ask(*args: object, **kwargs: object) -> list[object]:
        over.wait(20)
        return []

    monkeypatch.setattr(outbound, "CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", ask)

    assert "resolved in time" in fails(client, "http://pictures.test/", TransientError)
    over.set()


def test_a_resolver_in_trouble_may_pass(client: Client, names: Names) -> None:
    names.answers["pictures.test"] = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]

    fails(client, "http://pictures.test/", TransientError)


@pytest.fixture
def stopped() -> Iterator[None]:
    """SIGUSR1 does what it does in a worker process whose job has run for too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, stop)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_the_jobs_time_limit_ends_a_read_and_closes_the_connection(client: Client, stopped: None) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(response(PICTURE[:5], Content_Length=str(len(PICTURE))))
        os.kill(os.getpid(), signal.SIGUSR1)
        web.wait_for_the_client_to_leave(connection)

    with serve(answer) as web:
        with pytest.raises(SoftTimeLimitExceeded):
            client.get(f"http://{HERE}:{web.port}/")
        assert web.left.wait(10)
    assert not list(client.folder.rglob("picture"))


def test_the_jobs_time_limit_ends_a_wait_for_the_resolver(
    client: Client, stopped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def ask(*args: object, **kwargs: object) -> list[object]:
        os.kill(os.getpid(), signal.SIGUSR1)
        over.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    begin = monotonic()

    with pytest.raises(SoftTimeLimitExceeded):
        client.get("http://pictures.test/")
    assert monotonic() - begin < outbound.CONNECT_TIMEOUT_S
    over.set()


# Over TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for pictures.test, and its key, in one file."""
    made = tmp_path_factory.mktemp("tls") / "pictures.test.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=pictures.test", "-addext", "subjectAltName=DNS:pictures.test"]
    usage = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    files = ["-keyout", "key", "-out", "cert"]
    subprocess.run([*command, *names, *usage, *files], cwd=made.parent, check=True, capture_output=True)
    made.write_text((made.parent / "cert").read_text() + (made.parent / "key").read_text())
    return made


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def test_a_picture_is_fetched_over_tls_by_the_hosts_name(
    client: Client, names: Names, tls: ssl.SSLContext, trusted: None
) -> None:
    named: list[str | None] = []
    tls.sni_callback = lambda connection, name, context: named.append(name)
    names.answers["pictures.test"] = [[HERE], ["127.0.0.1"]]
    with serve(response(PICTURE), tls=tls) as web:
        assert client.get(f"https://pictures.test:{web.port}/") == PICTURE

    assert named == ["pictures.test"]
    assert web.reached == [HERE]


def test_a_certificate_for_another_name_is_refused(
    client: Client, names: Names, tls: ssl.SSLContext, trusted: None
) -> None:
    names.answers["other.test"] = [[HERE]]
    with serve(response(PICTURE), tls=tls) as web:
        assert "certificate" in fails(client, f"https://other.test:{web.port}/", DownloadFailed)
        assert "certificate" in fails(client, f"https://{HERE}:{web.port}/", DownloadFailed)
    assert not web.heads


def test_a_certificate_that_nobody_vouches_for_is_refused(client: Client, names: Names, tls: ssl.SSLContext) -> None:
    names.answers["pictures.test"] = [[HERE]]
    with serve(response(PICTURE), tls=tls) as web:
        assert "certificate" in fails(client, f"https://pictures.test:{web.port}/", DownloadFailed)


def test_a_redirect_may_not_give_up_encryption(
    client: Client, names: Names, tls: ssl.SSLContext, trusted: None
) -> None:
    names.answers["pictures.test"] = [[HERE]]
    with serve(response(PICTURE)) as plain, serve(redirect(f"http://{HERE}:{plain.port}/"), tls=tls) as web:
        assert "from https to http" in fails(client, f"https://pictures.test:{web.port}/", UrlRefused)
    assert not plain.reached
