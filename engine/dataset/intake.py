"""Taking a folder in: its pictures, and the first time the captions and masks that lie beside them."""

from __future__ import annotations

from engine.dataset.export import import_sidecars
from engine.dataset.library import Dataset
from engine.dataset.mask_files import import_masks
from engine.dataset.pictures import Listing, ScanReport, scan
from engine.dataset.view import View
from engine.progress import ProgressSink, silent


def take_in(dataset: Dataset, progress: ProgressSink = silent, listed: Listing | None = None) -> ScanReport:
    """Bring the store up to date with the folder. Captions beside the pictures are read where nothing was read yet,
    masks where nothing was ever edited."""
    report = scan(dataset, progress, listed=listed)
    if not dataset.store.sources():
        import_sidecars(dataset, View(dataset.store), first=True)
    if report.masks and not dataset.store.events(1):
        import_masks(dataset)
    return report
