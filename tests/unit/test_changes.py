"""What a waiter is told."""

from app.changes import Watch


async def test_what_comes_together_with_the_end_of_the_time_has_come() -> None:
    watch = Watch(until_end=True, forget=lambda _: None)
    watch.hear("SUCCESS", "")
    watch.release()

    assert await watch.wait(timeout_s=10)
    assert not await watch.wait(timeout_s=10), "nobody waits any longer"


async def test_a_job_that_goes_on_ends_no_wait_for_its_end() -> None:
    watch = Watch(until_end=True, forget=lambda _: None)
    watch.hear("INFERENCE", "")

    assert not await watch.wait(timeout_s=0.01)
