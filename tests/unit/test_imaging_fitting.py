"""Sizes, and what of the picture is shown in them."""

import itertools

import numpy as np
import pytest
from PIL import Image

from app.imaging.fitting import Fit, Size, fitting

SIDES = (1, 2, 3, 7, 64, 333, 800, 4000)
LENGTHS = (1, 3, 50, 333, 801, 4000)
EVERY = [((a, b), (c, d)) for a, b, c, d in itertools.product(LENGTHS, LENGTHS, SIDES, SIDES)]


def outcome(source: Size, box: tuple[int | None, int | None], fit: Fit, *, enlarge: bool = False) -> Size:
    return fitting(source, width=box[0], height=box[1], fit=fit, enlarge=enlarge).size


@pytest.mark.parametrize(
    ("fit", "enlarge", "expected"),
    [
        (Fit.INSIDE, False, [(300, 200), (200, 133), (150, 100), (600, 400), (600, 400)]),
        (Fit.INSIDE, True, [(300, 200), (200, 133), (150, 100), (1200, 800), (900, 600)]),
        (Fit.COVER, False, [(300, 300), (200, 200), (150, 150), (400, 400), (600, 400)]),
        (Fit.FILL, True, [(300, 300), (200, 200), (150, 150), (1200, 1200), (900, 600)]),
    ],
)
def test_a_picture_of_600_x_400(fit: Fit, *, enlarge: bool, expected: list[Size]) -> None:
    boxes = [(300, 300), (200, 200), (150, 150), (1200, 1200), (900, 600)]

    assert [outcome((600, 400), box, fit, enlarge=enlarge) for box in boxes] == expected


@pytest.mark.parametrize("fit", Fit)
def test_one_side_draws_the_other_after_it(fit: Fit) -> None:
    assert outcome((600, 400), (320, None), fit) == (320, 213)
    assert outcome((600, 400), (None, 100), fit) == (150, 100)
    assert outcome((600, 400), (900, None), fit) == (600, 400)
    assert outcome((600, 400), (900, None), fit, enlarge=True) == (900, 600)
    assert outcome((10_000, 1), (100, None), fit) == (100, 1)


@pytest.mark.parametrize("enlarge", [False, True])
def test_inside_lies_in_the_box_touches_it_and_keeps_the_aspect(*, enlarge: bool) -> None:
    for source, box in EVERY:
        size = outcome(source, box, Fit.INSIDE, enlarge=enlarge)

        assert all(1 <= side <= limit for side, limit in zip(size, box, strict=True))
        if size != source:
            assert size[0] == box[0] or size[1] == box[1]
        scale = min(box[0] / source[0], box[1] / source[1])
        scale = scale if enlarge else min(1, scale)
        for side, length in zip(size, source, strict=True):
            assert side == 1 or abs(side - length * scale) <= 0.5 + 1e-9


@pytest.mark.parametrize("fit", [Fit.COVER, Fit.FILL])
def test_the_box_is_filled_exactly_or_by_its_aspect_without_enlarging(fit: Fit) -> None:
    for source, box in EVERY:
        size = outcome(source, box, fit)

        assert all(1 <= side <= min(limits) for side, *limits in zip(size, box, source, strict=True))
        scale = min(1, source[0] / box[0], source[1] / box[1])
        for side, length in zip(size, box, strict=True):
            assert side == 1 or abs(side - length * scale) <= 0.5 + 1e-9
        assert outcome(source, box, fit, enlarge=True) == box


def test_what_is_shown_lies_in_the_picture_and_is_not_enlarged() -> None:
    for source, box in EVERY:
        shown = fitting(source, width=box[0], height=box[1], fit=Fit.COVER, enlarge=False)

        assert all(0 < part <= side for part, side in zip(shown.part, source, strict=True))
        assert shown.part[0] == source[0] or shown.part[1] == source[1]
        assert shown.part[0] * box[1] == pytest.approx(shown.part[1] * box[0])
        assert all(size <= max(1, part + 0.5) for size, part in zip(shown.size, shown.part, strict=True))


def stripes() -> Image.Image:
    """Columns of red, green, blue, 30 pixels each."""
    picture = Image.new("RGB", (90, 30), "red")
    picture.paste((0, 255, 0), (30, 0, 60, 30))
    picture.paste((0, 0, 255), (60, 0, 90, 30))
    return picture


def test_cover_cuts_off_both_sides_alike() -> None:
    shown = fitting((90, 30), width=15, height=15, fit=Fit.COVER, enlarge=False).apply(stripes())

    assert shown.size == (15, 15)
    assert np.abs(np.asarray(shown, int)[:, 2:-2] - (0, 255, 0)).max() <= 2


def test_fill_shows_all_of_it_stretched() -> None:
    shown = fitting((90, 30), width=30, height=30, fit=Fit.FILL, enlarge=False).apply(stripes())

    assert shown.size == (30, 30)
    assert [shown.getpixel((x, 15)) for x in (5, 15, 25)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_a_picture_that_was_decoded_smaller_shows_the_same() -> None:
    plan = fitting((90, 30), width=15, height=15, fit=Fit.COVER, enlarge=False)

    shown = plan.apply(stripes().resize((45, 15)))

    assert shown.size == (15, 15)
    assert np.abs(np.asarray(shown, int)[:, 2:-2] - (0, 255, 0)).max() <= 8


def test_nothing_to_do_is_nothing_done() -> None:
    picture = stripes()

    assert fitting((90, 30), width=800, height=None, fit=Fit.INSIDE, enlarge=False).apply(picture) is picture


def test_the_least_source_is_twice_what_is_needed() -> None:
    assert fitting((4000, 3000), width=800, height=None, fit=Fit.INSIDE, enlarge=False).least_source == (1600, 1200)
    assert fitting((4000, 3000), width=300, height=300, fit=Fit.COVER, enlarge=False).least_source == (800, 600)
    assert fitting((4000, 3000), width=100, height=600, fit=Fit.FILL, enlarge=False).least_source == (200, 1200)


def test_transparent_pixels_lend_no_colour() -> None:
    picture = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (20, 0, 40, 40))

    shown = fitting((40, 40), width=9, height=9, fit=Fit.INSIDE, enlarge=False).apply(picture)

    pixels = np.asarray(shown, int).reshape(-1, 4)
    assert pixels[pixels[:, 3] > 10][:, 0].max() <= 8
    assert shown.getpixel((0, 4)) == (0, 0, 0, 0)


@pytest.mark.parametrize("fit", Fit)
def test_thin_pictures_in_thin_boxes_can_be_made(fit: Fit) -> None:
    for source, box in itertools.product([(1, 1), (1, 900), (900, 1), (7, 900)], [(1, 900), (900, 1), (3, 2)]):
        for enlarge in (False, True):
            plan = fitting(source, width=box[0], height=box[1], fit=fit, enlarge=enlarge)

            assert plan.apply(Image.new("RGB", source, "red")).getcolors() == [
                (plan.size[0] * plan.size[1], (255, 0, 0))
            ]
