"""The error tree, and what of it a client is told."""

import pytest

from app import errors
from app.errors import AppError, describe


def tree(root: type[AppError] = AppError) -> list[type[AppError]]:
    return [root, *(kind for sub in root.__subclasses__() for kind in tree(sub))]


def test_every_error_says_its_sentence_code_and_status() -> None:
    for kind in tree():
        assert kind.__doc__
        assert kind.code.islower()
        assert 400 <= kind.http_status < 600


def test_an_error_has_its_own_code() -> None:
    codes = [kind.code for kind in tree() if kind is not errors.InternalError]

    assert len(codes) == len(set(codes))


def test_an_error_can_be_made_again_of_its_name_and_its_one_message() -> None:
    for kind in tree():
        again = kind(*kind("What happened.").args)
        assert again.message == str(again) == "What happened."


def test_our_own_errors_are_told_as_they_are() -> None:
    told = describe("InvalidImage", "The picture is damaged.")

    assert (told.code, told.message, told.retryable) == ("invalid_image", "The picture is damaged.", False)


@pytest.mark.parametrize(
    ("name", "code"),
    [("TimeLimitExceeded", "time_limit"), ("WorkerLostError", "worker_crashed"), ("KeyError", "internal_error")],
)
def test_the_messages_of_others_are_not_passed_on(name: str, code: str) -> None:
    told = describe(name, "/srv/secret")

    assert told.code == code
    assert "/srv" not in told.message
