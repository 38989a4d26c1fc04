"""PhysioNet/CinC Challenge 2017: single-lead ECGs of 9 to 61 s at 300 Hz in four classes."""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pytorch_lightning import LightningDataModule
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch.utils.data import DataLoader

from datamodules.loading.loaders import ResumableDataLoader, data_root, is_rank_zero, warn
from datamodules.loading.reporting import describe_skipped
from datamodules.signals.batches import Records, evaluation_batches, training_batches
from datamodules.signals.cache import Cache, open_cache
from modules.components.options import at_least

CLASSES = ("N", "A", "O", "~")
"""Normal, atrial fibrillation, other rhythm, noisy: labels 0 to 3."""
SAMPLING_RATE = 300
LONGEST = 18286
"""Samples of the set's longest record, A05736; the published networks pad every record to it."""
HOW_TO_GET = (
    "Expected is <root>/training2017/A00001.hea, A00001.mat, ... and REFERENCE-v3.csv: training2017.zip and "
    "REFERENCE-v3.csv of https://physionet.org/content/challenge-2017. Set the root by root or PARSIMONY_DATA."
)


class Split(NamedTuple):
    """Names of the records of one fold."""

    train: list[str]
    valid: list[str]
    test: list[str]


def read_labels(file: Path) -> dict[str, int]:
    """Record name -> class of a reference file with lines such as ``A00001,N``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another label than N, A, O or ~.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}. {HOW_TO_GET}")
    labels: dict[str, int] = {}
    with file.open(newline="") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            if len(row) != 2 or row[1] not in CLASSES:
                raise ValueError(f"{file}, line {number}: expected a record and one of {', '.join(CLASSES)}, got {row}")
            labels[row[0]] = CLASSES.index(row[1])
    return labels


def read_split(folder: Path, fold: int) -> Split:
    """The published lists ``train<fold>.json``, ``valid<fold>.json`` and ``test<fold>.json``: numbers or names.

    Raises:
        FileNotFoundError: if one of them is missing.
        ValueError: if one is no list, or a record is in two of them.
    """
    lists = []
    for part in Split._fields:
        file = folder / f"{part}{fold}.json"
        if not file.is_file():
            raise FileNotFoundError(f"no file {file}; a folder of splits holds train, valid and test lists per fold")
        try:
            content = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
        if not isinstance(content, list) or not all(isinstance(entry, int | str) for entry in content):
            raise ValueError(f"{file} must be a list of record numbers or names")
        lists.append([f"A{entry:05d}" if isinstance(entry, int) else entry for entry in content])
    split = Split(*lists)
    everything = [name for part in split for name in part]
    if len(set(everything)) < len(everything):
        twice = next(name for name in everything if everything.count(name) > 1)
        raise ValueError(f"{folder}, fold {fold}: {twice} is listed twice")
    return split


def stratified_split(names: list[str], labels: list[int], fold: int, num_folds: int, seed: int) -> Split:
    """Test is one of ``num_folds`` equal parts, the rest is train and valid 5 : 1, each stratified by class.

    Raises:
        ValueError: if there are too few records for every class to be in every part.
    """
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    rest, test = list(folds.split(names, labels))[fold]
    if -(-len(rest) // 6) < len(set(labels)):
        raise ValueError(f"{len(names)} usable records are too few for {num_folds} folds of all classes")
    train, valid = train_test_split(rest, test_size=1 / 6, random_state=seed, stratify=[labels[i] for i in rest])
    return Split(*([names[i] for i in sorted(part)] for part in (train, valid, test)))


class PhysioNet2017(LightningDataModule):
    """One fold of the challenge's public set.

    Layout::

        <root>/training2017/A00001.hea, A00001.mat, ...   and REFERENCE-v3.csv
        <root>/splits/split_5_6_14/train0.json, ...       optional: the published lists of record numbers

    Batches: ``signal`` float32 [N, T] in 1/1000 mV, zero after the ``length`` int64 [N] samples of a record;
    ``label`` int64 [N] (N 0, A 1, O 2, ~ 3); ``index`` int64 [N], the record's place in its list; ``name``. ``predict``
    takes the test list. At first use the records are packed into one file (see datamodules/signals/cache.py). A record
    that is truncated, of another rate than 300 Hz, in no unit of voltage, shorter than one window of the spectrogram,
    or without a label is left out, counted and named; so is one that a list or the reference names and that is not
    there. ``strict`` refuses instead.

    Args:
        root: holds the folders; PARSIMONY_DATA or ``data`` if not given.
        folder: of the records, below the root.
        reference: file of the labels, in that folder.
        splits: folder of split lists below the root; None draws stratified folds.
        fold: number of the test fold.
        num_folds: of the stratified folds.
        batch_size: training records a batch, on each device.
        val_batch_size: the same for validation and test.
        pad_to: samples that every batch is padded to (18286 as published); None pads to its longest record.
        bucket: whether batches hold records of similar length.
        oversample: whether rare classes enter an epoch several times, as published.
        strict: whether a record that must be left out is an error.
        cache_dir: of the packed file; ``<root>/<folder>_cache`` if not given.
        num_workers: loader processes; the packed file hardly needs any.
        seed: of the stratified folds and of the training order.

    Raises:
        FileNotFoundError: at setup, if records, labels or lists are missing.
        ValueError: for a bad argument or label, or with ``strict`` for a record that must be left out.
    """

    def __init__(
        self,
        root: str | None = None,
        folder: str = "training2017",
        reference: str = "REFERENCE-v3.csv",
        splits: str | None = None,
        fold: int = 0,
        num_folds: int = 5,
        batch_size: int = 20,
        val_batch_size: int = 20,
        pad_to: int | None = None,
        bucket: bool = True,
        oversample: bool = False,
        strict: bool = False,
        cache_dir: str | None = None,
        num_workers: int = 0,
        seed: int = 14,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(2, num_folds=num_folds)
        at_least(1, batch_size=batch_size, val_batch_size=val_batch_size, pad_to=pad_to)
        at_least(0, num_workers=num_workers)
        if not 0 <= fold < num_folds:
            raise ValueError(f"fold must be in 0..{num_folds - 1}, got {fold}")
        self.folder = data_root(root) / folder
        self.reference = self.folder / reference
        self.splits = data_root(root) / splits if splits else None
        self.fold, self.num_folds = fold, num_folds
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.pad_to, self.bucket, self.oversample = pad_to, bucket, oversample
        self.strict = strict
        self.cache_dir = Path(cache_dir) if cache_dir else self.folder.with_name(f"{self.folder.name}_cache")
        self.num_workers = num_workers
        self.seed = seed
        self.sets: dict[str, Records] = {}

    def prepare_data(self) -> None:
        """Pack the records, in one process."""
        self._open()

    def setup(self, stage: str) -> None:
        if self.sets:
            return
        labels = read_labels(self.reference)
        cache = self._open()
        usable = [name for name in cache.names if name in labels]
        split = self._split(usable, labels)
        self._report(cache, labels, split)
        rows = {name: row for row, name in enumerate(cache.names)}
        for part, listed in split._asdict().items():
            names = [name for name in listed if name in rows and name in labels]
            if not names:
                raise ValueError(f"no usable record in the {part} list of fold {self.fold}")
            self.sets[part] = Records(
                cache,
                np.array([rows[name] for name in names], np.int64),
                np.array([labels[name] for name in names], np.int64),
                self.pad_to,
            )

    def train_dataloader(self) -> ResumableDataLoader:
        return training_batches(
            self.sets["train"],
            self.batch_size,
            self.seed,
            self.num_workers,
            self.trainer,
            oversample=self.oversample,
            bucket=self.bucket,
        )

    def val_dataloader(self) -> DataLoader:
        return evaluation_batches(self.sets["valid"], self.val_batch_size, self.num_workers, self.trainer)

    def test_dataloader(self) -> DataLoader:
        return evaluation_batches(self.sets["test"], self.val_batch_size, self.num_workers, self.trainer)

    predict_dataloader = test_dataloader

    def _open(self) -> Cache:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {self.folder}. {HOW_TO_GET}")
        return open_cache(self.folder, self.cache_dir, SAMPLING_RATE, min_samples=64, quiet=not is_rank_zero())

    def _split(self, usable: list[str], labels: dict[str, int]) -> Split:
        if self.splits:
            return read_split(self.splits, self.fold)
        classes = [labels[name] for name in usable]
        if min((classes.count(label) for label in set(classes)), default=0) < self.num_folds:
            raise ValueError(f"{self.folder}: every class needs at least {self.num_folds} usable records")
        return stratified_split(usable, classes, self.fold, self.num_folds, self.seed)

    def _report(self, cache: Cache, labels: dict[str, int], split: Split) -> None:
        """Name once, or refuse, what is left out."""
        left_out = {**cache.skipped}
        found = {*cache.names, *(name for names in cache.skipped.values() for name in names)}
        wanted = {*labels, *(name for part in split for name in part)}
        if absent := sorted(wanted - found):
            left_out["without files"] = absent
        if unlabelled := [name for name in cache.names if name not in labels]:
            left_out["without a label"] = unlabelled
        if left_out:
            message = f"{self.folder}: left out {describe_skipped(left_out)}"
            if self.strict:
                raise ValueError(message)
            warn(message)
