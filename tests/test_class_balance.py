"""When classes are uneven, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from nas_lightning.class_balance import ClassBalance
from nas_lightning.datamodules import Digits, Synthetic


@pytest.mark.parametrize(
    ("train", "test", "is_uneven"),
    [
        ([100, 100], [10, 10], False),
        ([150, 100], [10, 10], False),
        ([151, 100], [10, 10], True),
        ([100, 100], [16, 10], True),
        ([2, 1], [1, 0], False),  # as even as three images, or one, can be
        ([3, 1], [1, 1], True),
        ([100, 0], [1, 1], True),
        ([100], [10], False),
    ],
)
def test_classes_are_uneven_beyond_half_as_many_again(
    train: list[int], test: list[int], is_uneven: bool
) -> None:
    balance = ClassBalance({"train": np.array(train), "test": np.array(test)})
    assert balance.is_uneven == is_uneven
    has_empty = 0 in [*train, *test]
    assert bool(balance.lines("data")) == (is_uneven or has_empty)


def test_the_lines_name_the_largest_and_smallest_class_and_those_without_images() -> None:
    balance = ClassBalance(
        {"train": np.array([1200, 35, 0, 600]), "test": np.array([0, 7, 0, 0])}, ("cat", "newt", "owl", "yak")
    )
    assert balance.lines("Pets") == [
        "Pets: uneven classes: 1,200 training images of cat, 35 of newt (34.3 to 1)",
        "Pets: no training image of owl; no test image of cat, owl, yak",
    ]
    assert balance.record() == {
        "train": {
            "largest": {"class": "cat", "images": 1200},
            "smallest": {"class": "newt", "images": 35},
            "empty": ["owl"],
        },
        "test": {
            "largest": {"class": "newt", "images": 7},
            "smallest": {"class": "newt", "images": 7},
            "empty": ["cat", "owl", "yak"],
        },
    }


def test_of_many_classes_without_images_a_few_are_named() -> None:
    (line,) = ClassBalance({"val": np.array([1, *[0] * 11])}).lines("Pets")
    names = ", ".join(f"class {number}" for number in range(1, 6))
    assert line == f"Pets: no validation image of {names}, 6 more"


def test_even_data_sets_are_even(caplog: pytest.LogCaptureFixture) -> None:
    for data in (
        Digits(),
        Digits(validation_fraction=0.1),
        Synthetic(train_size=24, test_size=13, batch_size=8),
    ):
        with caplog.at_level("INFO"):
            data.setup("fit")
        assert not data.class_balance.is_uneven
        for split, counts in data.class_balance.counts.items():
            assert counts.sum() == data.split_sizes[split]
    assert "classes" not in caplog.text
    assert "image of" not in caplog.text
