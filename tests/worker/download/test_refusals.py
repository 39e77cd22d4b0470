"""Where a URL may not lead, at once, by redirects or by names."""

import socket

import pytest

from app.errors import DownloadFailed, UrlRefused
from app.worker.download import MAX_REDIRECTS
from tests.downloads import HERE, PICTURE, Fetcher, fails, redirect
from tests.web import Names, response, serve

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
def test_a_redirect_to_what_is_not_public_is_refused(location: str, fetcher: Fetcher, names: Names) -> None:
    names.answers["metadata.test"] = [["169.254.169.254"]]

    def answer(connection: socket.socket, target: str) -> None:
        connection.sendall(redirect(location.format(port=web.port)))

    with serve(answer) as web:
        message = fails(fetcher, f"http://{HERE}:{web.port}/", UrlRefused)

    assert web.reached == [HERE]
    assert "169.254" not in message


@pytest.mark.parametrize("url", LEADS_INSIDE)
def test_a_url_of_what_is_not_public_is_refused(url: str, fetcher: Fetcher, names: Names) -> None:
    names.answers["metadata.test"] = [["169.254.169.254"]]
    with serve(response(PICTURE)) as web:
        fails(fetcher, url.format(port=web.port), UrlRefused)

    assert not web.reached


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "fe80::1%lo"])
def test_one_address_that_is_not_public_spoils_a_name(address: str, fetcher: Fetcher, names: Names) -> None:
    names.answers["mixed.test"] = [[HERE, address]]
    with serve(response(PICTURE)) as web:
        assert fails(fetcher, f"http://mixed.test:{web.port}/", UrlRefused) == UrlRefused.SENTENCE

    assert not web.reached


def test_a_name_cannot_change_its_mind_after_it_was_checked(fetcher: Fetcher, names: Names) -> None:
    names.answers["rebinding.test"] = [[HERE], ["127.0.0.1"]]
    with serve(response(PICTURE)) as web:
        fetcher.get(f"http://rebinding.test:{web.port}/")

    assert web.reached == [HERE]
    assert names.asked == ["rebinding.test"]


def test_a_name_is_checked_anew_at_every_hop(fetcher: Fetcher, names: Names) -> None:
    names.answers["rebinding.test"] = [[HERE], ["127.0.0.1"]]
    with serve(redirect("/again")) as web:
        fails(fetcher, f"http://rebinding.test:{web.port}/", UrlRefused)

    assert web.reached == [HERE]


def test_a_name_that_does_not_exist_is_told_like_one_that_is_internal(fetcher: Fetcher, names: Names) -> None:
    names.answers["internal.test"] = [["10.0.0.1"]]

    assert fails(fetcher, "http://nowhere.test/", UrlRefused) == fails(fetcher, "http://internal.test/", UrlRefused)


def test_redirects_in_a_circle_end(fetcher: Fetcher) -> None:
    with serve(redirect("/")) as web:
        assert "redirects more than 5 times" in fails(fetcher, f"http://{HERE}:{web.port}/", DownloadFailed)
    assert len(web.heads) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("location", ["http://[", "//\xff", "/a b"])
def test_a_redirect_to_nonsense_is_refused(location: str, fetcher: Fetcher) -> None:
    with serve(redirect("%s").replace(b"%s", location.encode("latin-1"))) as web:
        fails(fetcher, f"http://{HERE}:{web.port}/", UrlRefused)
