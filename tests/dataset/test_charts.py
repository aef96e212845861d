from __future__ import annotations

import numpy as np

from engine.dataset.charts import charts
from engine.dataset.library import Dataset
from engine.dataset.pictures import scan
from engine.dataset.query import matching
from engine.dataset.view import View
from tests.dataset.conftest import picture


def test_every_picture_is_in_one_bar_whose_filter_finds_it(dataset: Dataset) -> None:
    sizes = ((300, 600), (700, 700), (1200, 1024), (2100, 2600), (900, 400), (512, 512), (255, 100))
    for shade, size in enumerate(sizes):
        picture(dataset.root / f"p{shade}.png", shade, size)
    scan(dataset)
    dataset.store.decide([(i, f"tag_{n}", 1) for i in range(1, 6) for n in range(i * 4)], "Tags")
    view = View(dataset.store)
    found = charts(view)
    assert list(found) == ["sides", "ratios", "tags", "tokens"]
    for bars in found.values():
        masks = [matching(view, bar.filter) for bar in bars]
        assert [int(mask.sum()) for mask in masks] == [bar.n for bar in bars]
        assert np.sum(masks, axis=0).tolist() == [1] * 10
    assert [bar.title for bar in found["sides"]] == ["0 – 255", "256 – 511", "512 – 767", "1024 – 1535", "≥ 2048"]


def test_a_dataset_without_pictures_has_no_charts(dataset: Dataset) -> None:
    dataset.store.remove_pictures([1, 2, 3], "All")
    assert charts(View(dataset.store)) == {}
