"""Forms in one piece, as most come, are read as those that come in many."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request

from app.api.body import Chunks
from app.api.multipart import read_form
from app.errors import BadRequest

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="dog.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
PLAIN = HEAD + b"\xff\xd8dog\r\n--b--\r\n"

FORMS = {
    "plain": PLAIN,
    "without the last line's end": PLAIN[:-2],
    "without a type": PLAIN.replace(b"Content-Type: image/jpeg\r\n", b""),
    "with an empty file": PLAIN.replace(b"\xff\xd8dog", b""),
    "with lines in the file": PLAIN.replace(b"dog\r\n", b"\r\n--\r\n--a\r\n\r\n"),
    "with what is nearly a boundary": PLAIN.replace(b"dog\r\n", b"dog\r\n--bb\r\n"),
    "with an end in the file": PLAIN.replace(b"dog\r\n", b"dog\r\n--b--\r\nmore"),
    "with an epilogue": PLAIN + b"and more",
    "with a preamble": b"before\r\n" + PLAIN,
    "with a field": PLAIN[:-4] + b'\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n5\r\n--b--\r\n',
    "of two files": PLAIN[:-4] + b"\r\n" + HEAD[5:] + b"cat\r\n--b--\r\n",
    "with headers in another case": PLAIN.replace(b"Content-D", b"content-d"),
    "with a longer type": PLAIN.replace(b"jpeg", b"j" * 2000),
    "with too long a type": PLAIN.replace(b"jpeg", b"j" * 5000),
    "with a longer name": PLAIN.replace(b"dog", b"d" * 2000, 1),
    "with too long a name": PLAIN.replace(b"dog", b"d" * 5000, 1),
    "with another header": PLAIN.replace(b"Content-Type", b"X-Type"),
    "with no name": PLAIN.replace(b"dog.jpg", b""),
    "with a path": PLAIN.replace(b"dog.jpg", b"/etc/dog.jpg"),
    "with a path of Windows": PLAIN.replace(b"dog.jpg", b"C:\\dog.jpg"),
    "with an escaped name": PLAIN.replace(b"dog.jpg", b'a\\"b;c%22.jpg'),
    "with a name that is not ASCII": PLAIN.replace(b"dog.jpg", "hündin.jpg".encode()),
    "with a control character": PLAIN.replace(b"dog.jpg", b"d\x07g.jpg"),
    "with a name of both kinds": PLAIN.replace(b'dog.jpg"', b"dog.jpg\"; filename*=UTF-8''cat.jpg"),
    "of a file of another name": PLAIN.replace(b'"file"', b'"image"'),
    "with no end": PLAIN[:-8],
    "with half an end": PLAIN[:-3],
    "with no head": b"--b\r\n\r\ndog\r\n--b--\r\n",
    "empty": b"",
    "of nothing": b"--b--\r\n",
}


class Told:
    """A file, as it was told of."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.content = b""
        self.finished = False

    def write(self, chunk: memoryview) -> None:
        self.content += chunk

    def finish(self) -> None:
        self.finished = True


def read(*pieces: bytes, boundary: str = "b") -> object:
    files: list[Told] = []

    def new_file(name: str | None) -> Told:
        files.append(Told(name))
        return files[-1]

    async def cut() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    try:
        fields = asyncio.run(read_form(boundary.encode(), cut(), new_file))
    except BadRequest as error:
        return str(error)
    return fields, [vars(file) for file in files]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_form_in_one_piece_is_read_like_one_in_many(form: bytes) -> None:
    assert read(form) == read(*(form[at : at + 1] for at in range(len(form))))


@pytest.mark.parametrize("length", [256, 257])
def test_a_long_boundary_is_read_in_one_piece_as_in_many(length: int) -> None:
    boundary = "b" * length
    form = PLAIN.replace(b"--b", b"--" + boundary.encode())
    in_one = read(form, boundary=boundary)

    assert in_one == read(form[:9], form[9:], boundary=boundary)
    assert isinstance(in_one, str) == (length > 256)


class Piece(bytes):
    """Tells when it is held no longer."""

    gone: list[bytes]

    def __del__(self) -> None:
        self.gone.append(bytes(self))


@pytest.mark.parametrize("form", ["plain", "with another header"])
async def test_a_file_is_not_held_while_the_rest_of_the_body_comes(form: str) -> None:
    Piece.gone = []
    known: list[int] = []

    async def receive() -> dict[str, Any]:
        known.append(len(Piece.gone))
        first = len(known) == 1
        return {"type": "http.request", "body": Piece(FORMS[form]) if first else b"", "more_body": first}

    request = Request({"type": "http", "headers": []}, receive)
    await read_form(b"b", Chunks(request, max_bytes=1000), Told)

    assert known == [0, 1]


def test_what_follows_the_end_is_taken_in_and_let_go() -> None:
    assert read(PLAIN, b"and", b"more") == read(PLAIN)


def test_the_plainest_form_needs_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("app.api.multipart.MultipartParser")

    assert read(PLAIN) == ({}, [{"name": "dog.jpg", "content": b"\xff\xd8dog", "finished": True}])
