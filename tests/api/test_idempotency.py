"""Idempotency keys: a request that comes again is answered as the first was, and carried out once."""

import asyncio
import base64
from typing import Any

import httpx
import pytest
import redis

from app import idempotency, keys, queues
from app.config import Settings
from tests.api.test_submit import check_problem, files_in
from tests.backends import RESULT, backend_of, request_of
from tests.pictures import png

PICTURE = png(8, 8)


async def post(
    http: httpx.AsyncClient, key: str, picture: bytes = PICTURE, *, prefer: str = "", **options: Any
) -> httpx.Response:
    headers = {"Idempotency-Key": key, "Prefer": prefer}
    return await http.post("/classify", files={"file": ("dog.jpg", picture)}, data=options, headers=headers)


async def post_json(http: httpx.AsyncClient, key: str, **members: Any) -> httpx.Response:
    return await http.post("/classify", json=members, headers={"Idempotency-Key": key})


async def post_batch(http: httpx.AsyncClient, key: str, *pictures: bytes, **options: Any) -> httpx.Response:
    files = [("file", (f"{index}.jpg", picture)) for index, picture in enumerate(pictures)]
    return await http.post("/batches/classify", files=files, data=options, headers={"Idempotency-Key": key})


def data_uri(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def check_replayed(answer: httpx.Response, first: httpx.Response) -> None:
    assert first.status_code == answer.status_code == 202, answer.text
    assert "idempotency-replayed" not in first.headers
    assert answer.headers["idempotency-replayed"] == "true"
    assert answer.headers["location"] == first.headers["location"]
    assert answer.json() == first.json()


def jobs_in(client: redis.Redis) -> list[Any]:
    return list(client.keys(keys.job("*")))


def claim_in(client: redis.Redis) -> Any:
    """The one idempotency key that there is."""
    (found,) = client.keys(keys.idempotency("*"))
    return found


async def test_a_request_that_comes_again_is_answered_the_same_and_makes_no_job(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    first = await post(http, "a", top_k=3)
    before = files_in(settings)
    backend_of(settings).start(first.json()["job_id"], {"progress": 5}, request=request_of(first.json()["job_id"]))

    again = await post(http, "a", top_k=3)

    check_replayed(again, first)
    assert again.json()["status"] == "pending", "as it was answered, however the job is by now"
    assert len(jobs_in(client)) == 1
    assert files_in(settings) == before
    assert client.llen(keys.lane("classify", 5)) == 1
    assert 60_000 < client.pttl(claim_in(client)) <= settings.open_ttl * 1000


async def test_two_at_once_make_one_job(http: httpx.AsyncClient, client: redis.Redis, settings: Settings) -> None:
    answers = await asyncio.gather(*(post(http, "a") for _ in range(8)))

    assert len(jobs_in(client)) == len(files_in(settings)) == 1
    for answer in answers:
        if answer.status_code == 409:
            problem = check_problem(answer, 409, "idempotency_in_flight")
            assert problem["retryable"] is True
            assert answer.headers["retry-after"] == "1"
        else:
            assert answer.status_code == 202
            assert keys.job(answer.json()["job_id"]) in jobs_in(client)
    assert any(answer.status_code == 202 for answer in answers)
    assert (await post(http, "a")).headers["idempotency-replayed"] == "true"


async def test_a_key_is_claimed_before_the_body_is_read(http: httpx.AsyncClient, client: redis.Redis) -> None:
    request = http.build_request("POST", "/classify", files={"file": PICTURE}, headers={"Idempotency-Key": "a"})
    whole, begun, go_on = await request.aread(), asyncio.Event(), asyncio.Event()

    async def slowly() -> Any:
        begun.set()
        await go_on.wait()
        yield whole

    headers = {"Idempotency-Key": "a", "Content-Type": request.headers["content-type"]}
    slow = asyncio.create_task(http.post("/classify", content=slowly(), headers=headers))
    await begun.wait()

    check_problem(await post(http, "a"), 409, "idempotency_in_flight")
    assert 0 < client.ttl(claim_in(client)) <= keys.CLAIM_TTL_S
    go_on.set()
    assert (await slow).status_code == 202


@pytest.mark.parametrize("other_is_done", [True, False])
async def test_a_claim_that_lapsed_during_a_slow_upload_is_not_taken_back(
    http: httpx.AsyncClient,
    client: redis.Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    other_is_done: bool,
) -> None:
    enqueue, others = queues.enqueue, list[httpx.Response]()

    async def late(*arguments: Any) -> Any:
        monkeypatch.setattr("app.queues.enqueue", enqueue)
        if other_is_done:
            client.delete(claim_in(client))
            others.append(await post(http, "a"))
        else:
            client.set(claim_in(client), "the token of another")
        return await enqueue(*arguments)

    monkeypatch.setattr("app.queues.enqueue", late)

    answer = await post(http, "a")

    if other_is_done:
        check_replayed(answer, others[0])
        assert len(jobs_in(client)) == len(files_in(settings)) == 1
    else:
        check_problem(answer, 409, "idempotency_in_flight")
        assert client.get(claim_in(client)) == "the token of another"
        assert jobs_in(client) == files_in(settings) == []


async def test_a_claim_that_lapsed_unseen_is_completed_all_the_same(
    http: httpx.AsyncClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = queues.enqueue

    async def late(*arguments: Any) -> Any:
        client.delete(claim_in(client))
        return await enqueue(*arguments)

    monkeypatch.setattr("app.queues.enqueue", late)

    first = await post(http, "a")

    check_replayed(await post(http, "a"), first)


async def test_an_answer_that_was_never_kept_is_made_of_the_job(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> None:
        raise redis.ConnectionError("the process died")

    monkeypatch.setattr("app.idempotency.remember", die)
    first = await post(http, "a")
    job_id = first.json()["job_id"]
    backend_of(settings).start(job_id, {"progress": 5}, request=request_of(job_id))

    again = await post(http, "a")

    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == (await http.get(f"/status/{job_id}")).json()


async def test_a_replay_that_is_to_wait_waits_for_the_job(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    job_id = (await post(http, "a")).json()["job_id"]
    waiting = asyncio.create_task(post(http, "a", prefer="wait=20"))
    backend = backend_of(settings)
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))

    answer = await waiting

    assert (answer.status_code, answer.json()["job_id"]) == (200, job_id)
    assert answer.headers["idempotency-replayed"] == "true"
    assert answer.headers["preference-applied"] == "wait=20"
    assert len(jobs_in(client)) == 1


@pytest.mark.parametrize(
    "other",
    [{"picture": png(9, 9)}, {"top_k": 4}, {"priority": "high"}, {"threshold": 0.5}, {"picture": b"no picture"}],
)
async def test_a_key_is_for_one_request(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, other: dict[str, Any]
) -> None:
    first = await post(http, "a", top_k=3)

    check_problem(await post(http, "a", **{"top_k": 3, **other}), 422, "idempotency_mismatch")

    check_replayed(await post(http, "a", top_k=3), first)
    assert len(jobs_in(client)) == len(files_in(settings)) == 1


async def test_a_key_of_one_picture_is_none_of_a_batch(http: httpx.AsyncClient) -> None:
    await post(http, "a")
    await post_batch(http, "b", PICTURE)

    check_problem(await post_batch(http, "a", PICTURE), 422, "idempotency_mismatch")
    check_problem(await post(http, "b"), 422, "idempotency_mismatch")


async def test_requests_are_the_same_however_they_are_put(http: httpx.AsyncClient, settings: Settings) -> None:
    first = await post(http, "a")

    check_replayed(await post(http, "a", top_k="5", threshold="0.0"), first)
    check_replayed(await post(http, "a", model=settings.classify_model[0], priority="normal"), first)
    check_replayed(await post_json(http, "a", image=data_uri(PICTURE)), first)
    check_replayed(await post_json(http, "a", image=data_uri(PICTURE), threshold=0, top_k=5), first)


async def test_the_boundary_of_a_form_is_no_part_of_the_request(http: httpx.AsyncClient) -> None:
    first, again = [
        await http.post(
            "/classify",
            content=b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--%b--\r\n'
            % (boundary, PICTURE, boundary),
            headers={
                "Idempotency-Key": "a",
                "Content-Type": f"multipart/form-data; boundary={boundary.decode()}",
            },
        )
        for boundary in (b"one", b"another")
    ]

    check_replayed(again, first)


async def test_a_key_stands_for_a_url_too(
    http: httpx.AsyncClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.addresses.accept", lambda url, settings: _Url(url))
    first = await post_json(http, "a", url="https://example.com/a.jpg")

    check_replayed(await post_json(http, "a", url="https://example.com/a.jpg"), first)
    check_problem(await post_json(http, "a", url="https://example.com/b.jpg"), 422, "idempotency_mismatch")
    assert len(jobs_in(client)) == 1


class _Url(str):
    filename = None


async def test_a_batch_that_comes_again_is_answered_the_same(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings
) -> None:
    pictures = [PICTURE, b"no picture", b"\0" * 250_000, png(9, 9)]
    first = await post_batch(http, "a", *pictures)
    before = files_in(settings)

    check_replayed(await post_batch(http, "a", *pictures), first)

    assert (len(jobs_in(client)), files_in(settings)) == (2, before)
    check_problem(await post_batch(http, "a", *reversed(pictures)), 422, "idempotency_mismatch")
    erased = first.json()["jobs"][0]["job_id"]
    await http.delete(f"/jobs/{erased}")
    again = (await post_batch(http, "a", *pictures)).json()
    assert again["jobs"][0] == {"index": 0, "filename": None, "job_id": erased, "error": None}
    assert again["jobs"][1:] == first.json()["jobs"][1:]


async def test_a_batch_of_which_nothing_was_accepted_is_answered_the_same(http: httpx.AsyncClient) -> None:
    first = await post_batch(http, "a", b"no picture")

    check_replayed(await post_batch(http, "a", b"no picture"), first)


@pytest.mark.parametrize(
    "refused", [{"picture": b"no picture"}, {"top_k": 0}, {"picture": b"\0" * 250_000}, {"model": "none"}]
)
async def test_a_request_that_is_refused_gives_its_key_up(
    http: httpx.AsyncClient, client: redis.Redis, refused: dict[str, Any]
) -> None:
    assert 400 <= (await post(http, "a", **refused)).status_code < 500

    assert client.keys(keys.idempotency("*")) == []
    assert (await post(http, "a")).status_code == 202


async def test_so_does_one_that_cannot_be_taken_now(
    http: httpx.AsyncClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.delete(keys.served("classify"))
    check_problem(await post(http, "a"), 503, "model_unavailable")
    assert client.keys(keys.idempotency("*")) == []
    client.set(keys.served("classify"), "{}")

    with monkeypatch.context() as patch:

        async def refused(*_: Any) -> None:
            raise redis.ResponseError("MISCONF Errors writing to the AOF file")

        patch.setattr("app.queues.enqueue", refused)
        check_problem(await post(http, "a"), 503, "broker_unavailable")
    assert client.keys(keys.idempotency("*")) == []
    assert (await post(http, "a")).status_code == 202


async def test_an_answer_is_given_again_though_nobody_does_the_task_any_more(
    http: httpx.AsyncClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await post(http, "a")
    monkeypatch.setattr("app.availability._TRUSTED_S", -1.0)
    client.delete(keys.served("classify"))

    check_replayed(await post(http, "a"), first)


async def test_an_acceptance_that_got_lost_on_its_way_keeps_its_key(
    http: httpx.AsyncClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = queues.enqueue

    async def lost(*arguments: Any) -> None:
        await enqueue(*arguments)
        raise redis.TimeoutError("away")

    with monkeypatch.context() as patch:
        patch.setattr("app.queues.enqueue", lost)
        check_problem(await post(http, "a"), 503, "broker_unavailable")

    again = await post(http, "a")

    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert jobs_in(client) == [keys.job(again.json()["job_id"])]


async def test_a_key_that_cannot_be_given_up_lapses(
    http: httpx.AsyncClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr("app.idempotency.give_up", away)

    check_problem(await post(http, "a", top_k=0), 422, "invalid_option")

    assert 0 < client.ttl(claim_in(client)) <= keys.CLAIM_TTL_S


@pytest.mark.parametrize("key", ["", "a" * 256, "schl\xfcssel", "\u9375"])
async def test_what_cannot_be_a_key_is_refused(http: httpx.AsyncClient, settings: Settings, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode()}

    for path in ("/classify", "/batches/classify"):
        answer = await http.post(path, files={"file": PICTURE}, headers=headers)
        check_problem(answer, 400, "bad_request")
    assert files_in(settings) == []


async def test_there_is_one_key(http: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]

    check_problem(await http.post("/classify", files={"file": PICTURE}, headers=headers), 400, "bad_request")


async def test_a_key_may_be_as_long_as_it_may(http: httpx.AsyncClient) -> None:
    first = await post(http, "a" * 255)

    check_replayed(await post(http, "a" * 255), first)


async def test_an_erased_job_is_not_answered_again(http: httpx.AsyncClient, client: redis.Redis) -> None:
    job_id = (await post(http, "a")).json()["job_id"]
    await http.delete(f"/jobs/{job_id}")

    check_problem(await post(http, "a"), 410, "job_gone")
    check_problem(await post(http, "a", prefer="wait=5"), 410, "job_gone")
    assert "dog.jpg" not in str(client.get(claim_in(client)))
    client.delete(keys.job(job_id))
    check_problem(await post(http, "a"), 410, "job_gone")


def test_a_claim_that_is_not_complete_is_not_told() -> None:
    with pytest.raises(ValueError, match="not known yet"):
        idempotency.Claim("key", "token").for_script()
