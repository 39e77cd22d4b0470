"""Pictures over TLS: the address is the one that was checked, the name is the one that was asked for."""

import ssl
import subprocess
from pathlib import Path

import pytest

from app.errors import DownloadFailed, UrlRefused
from tests.downloads import HERE, PICTURE, Fetcher, fails, redirect
from tests.web import Names, response, serve


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
    fetcher: Fetcher, names: Names, tls: ssl.SSLContext, trusted: None
) -> None:
    named: list[str | None] = []
    tls.sni_callback = lambda connection, name, context: named.append(name)
    names.answers["pictures.test"] = [[HERE], ["127.0.0.1"]]
    with serve(response(PICTURE), tls=tls) as web:
        assert fetcher.get(f"https://pictures.test:{web.port}/") == PICTURE

    assert named == ["pictures.test"]
    assert web.reached == [HERE]


def test_a_certificate_for_another_name_is_refused(
    fetcher: Fetcher, names: Names, tls: ssl.SSLContext, trusted: None
) -> None:
    names.answers["other.test"] = [[HERE]]
    with serve(response(PICTURE), tls=tls) as web:
        assert "certificate" in fails(fetcher, f"https://other.test:{web.port}/", DownloadFailed)
        assert "certificate" in fails(fetcher, f"https://{HERE}:{web.port}/", DownloadFailed)
    assert not web.heads


def test_a_certificate_that_nobody_vouches_for_is_refused(fetcher: Fetcher, names: Names, tls: ssl.SSLContext) -> None:
    names.answers["pictures.test"] = [[HERE]]
    with serve(response(PICTURE), tls=tls) as web:
        assert "certificate" in fails(fetcher, f"https://pictures.test:{web.port}/", DownloadFailed)


def test_a_redirect_may_not_give_up_encryption(
    fetcher: Fetcher, names: Names, tls: ssl.SSLContext, trusted: None
) -> None:
    names.answers["pictures.test"] = [[HERE]]
    with serve(response(PICTURE)) as plain, serve(redirect(f"http://{HERE}:{plain.port}/"), tls=tls) as web:
        assert "from https to http" in fails(fetcher, f"https://pictures.test:{web.port}/", UrlRefused)
    assert not plain.reached
