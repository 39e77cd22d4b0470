"""Pictures from URLs: what is fetched, and how it is asked for."""

import socket
from pathlib import Path

import pytest

from app.worker.download import MAX_REDIRECTS
from tests.downloads import HERE, PICTURE, Fetcher, redirect
from tests.web import Names, response, serve


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_picture_is_fetched(fetcher: Fetcher) -> None:
    with serve(response(PICTURE)) as web:
        assert fetcher.get(f"http://{HERE}:{web.port}/dog.jpg?size=2") == PICTURE

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


def test_progress_is_told_where_the_server_says_the_length(fetcher: Fetcher) -> None:
    with serve(response(PICTURE)) as web:
        fetcher.get(f"http://{HERE}:{web.port}/")

    assert fetcher.told == sorted(fetcher.told)
    assert fetcher.told[-1] == 1.0


def test_a_body_without_a_length_is_fetched_to_its_end(fetcher: Fetcher) -> None:
    with serve(b"HTTP/1.1 200 OK\r\n\r\n" + PICTURE) as web:
        assert fetcher.get(f"http://{HERE}:{web.port}/") == PICTURE
    # Nothing moves on, but whoever is told can see whether there is still use for it.
    assert set(fetcher.told) == {0.0}


def test_a_chunked_body_counts_and_not_the_length_beside_it(fetcher: Fetcher) -> None:
    chunks = b"6\r\npictur\r\n1\r\ne\r\n0\r\n\r\n"
    with serve(response(chunks, Content_Length="3", Transfer_Encoding="chunked")) as web:
        assert fetcher.get(f"http://{HERE}:{web.port}/") == b"picture"
    assert max(fetcher.told) == 1.0


def test_an_empty_body_is_left_to_the_checks_of_pictures(fetcher: Fetcher) -> None:
    with serve(response(b"")) as web:
        assert fetcher.get(f"http://{HERE}:{web.port}/") == b""


def test_a_name_is_resolved_once_and_sent_as_the_host(fetcher: Fetcher, names: Names) -> None:
    names.answers["pictures.test"] = [[HERE]]
    with serve(response(PICTURE)) as web:
        assert fetcher.get(f"http://pictures.test:{web.port}/") == PICTURE

    assert names.asked == ["pictures.test"]
    assert f"Host: pictures.test:{web.port}" in web.heads[0]


@pytest.mark.parametrize("found", [["127.0.0.3", HERE], [HERE, "127.0.0.3"]])
def test_the_next_address_is_tried_where_one_does_not_answer(found: list[str], fetcher: Fetcher, names: Names) -> None:
    names.answers["pictures.test"] = [found]
    with serve(response(PICTURE), host=HERE) as web:
        assert fetcher.get(f"http://pictures.test:{web.port}/", "127.0.0.2/31") == PICTURE


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_fetched_from(fetcher: Fetcher) -> None:
    with serve(response(PICTURE), host="::1") as web:
        assert fetcher.get(f"http://[::1]:{web.port}/", "::1/128") == PICTURE
    assert f"Host: [::1]:{web.port}" in web.heads[0]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_are_followed(status: str, fetcher: Fetcher) -> None:
    def answer(connection: socket.socket, target: str) -> None:
        hop = int(target.removeprefix("/"))
        connection.sendall(redirect(str(hop + 1), status) if hop < MAX_REDIRECTS else response(PICTURE))

    with serve(answer) as web:
        assert fetcher.get(f"http://{HERE}:{web.port}/0") == PICTURE
    assert len(web.heads) == MAX_REDIRECTS + 1


def test_proxies_and_credentials_of_the_environment_are_not_used(
    fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine {HERE} login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve(response(b"from the proxy")) as proxy, serve(response(PICTURE)) as web:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert fetcher.get(f"http://{HERE}:{web.port}/") == PICTURE

    assert not proxy.reached
    assert not [line for line in web.heads[0] if "authorization" in line.lower()]
