"""`POST /transform`: what no upload could make possible is refused before it is queued."""

from typing import Any

import httpx
import pytest
import redis

from app import keys
from tests.pictures import png


async def post(http: httpx.AsyncClient, **fields: str) -> httpx.Response:
    return await http.post("/transform", files={"file": ("picture.png", png(40, 30))}, data=fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"width": "2000", "height": "501", "fit": "fill"}, "1002000 pixels, more than the 1000000 allowed"),
        ({"width": "16384", "height": "9", "fit": "cover", "format": "webp"}, "at most 16383"),
    ],
)
async def test_a_size_that_cannot_be_made_is_refused(
    http: httpx.AsyncClient, client: redis.Redis, fields: dict[str, str], reason: str
) -> None:
    client.set(keys.served("transform"), "{}")

    answer = await post(http, **fields, enlarge="true")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    assert reason in answer.json()["detail"]
    assert (await post(http, **fields)).status_code == 202


async def test_options_are_kept_as_they_will_be_read(http: httpx.AsyncClient, client: redis.Redis) -> None:
    client.set(keys.served("transform"), "{}")

    answer = await post(http, width="320", format="webp", fit="cover")

    record: Any = client.hgetall(keys.job(answer.json()["job_id"]))
    assert '"width":320' in record["options"].replace(" ", "")
    assert '"format":"webp"' in record["options"].replace(" ", "")
