"""What the project does on a real CUDA device: steps of the shipped configs, no waiting, the lossless codec's bytes."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from codec import load_codec, shipped_models
from modules.components.coding.container import pack, unpack
from tests.fake_cuda import connect, moved, own_steps
from tests.shipped_models import Experiment, batch, build, on_a_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def loader(one: Experiment) -> DataLoader:
    return DataLoader([batch(one)], batch_size=None)  # type: ignore[arg-type]


def trainer(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="gpu", devices=1, enable_checkpointing=False, **quiet, **options)


@pytest.mark.parametrize("one", on_a_gpu(), ids=lambda one: one.name)
def test_one_batch(one: Experiment) -> None:
    module = build(one)
    run = trainer(max_steps=4, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0)
    run.fit(module, loader(one), loader(one) if "validation_step" in own_steps(module) else None)
    assert run.global_step > 0
    assert all(p.isfinite().all() for p in module.parameters())
    assert all(math.isfinite(value) for name, value in run.logged_metrics.items() if name.endswith("loss"))
    if "predict_step" in own_steps(module):
        [output] = trainer().predict(module, loader(one))  # type: ignore[misc]
        assert isinstance(output, torch.Tensor) and len(output) == 2 and output.isfinite().all()


def test_lossless_files_are_those_of_the_cpu() -> None:
    path = shipped_models()["pixel_mlp"]
    on_cpu, on_gpu = load_codec(path), load_codec(path, device="cuda")
    random = np.random.default_rng(0)
    smooth = random.normal(0, 6, (150, 200, 3)).cumsum(0).cumsum(1) / 8 + 128
    photo = np.clip(smooth, 0, 255).astype(np.uint8)
    hard = 255 * random.integers(0, 2, (40, 31, 3), dtype=np.uint8)
    images = [photo, photo[:99, :, 1].copy(), hard, np.full((50, 60, 3), 7, np.uint8), photo[:1, :1], photo[:5]]
    files = [pack(on_cpu.compress(image)) for image in images]
    assert [pack(container) for container in on_gpu.compress_all(images)] == files
    for codec in (on_cpu, on_gpu):
        decoded = codec.decompress_all([unpack(file) for file in files])
        assert all(np.array_equal(a, b) for a, b in zip(decoded, images, strict=True))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(RuntimeError, match="are not exact"):
            on_gpu.compress(photo)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("one", on_a_gpu(), ids=lambda one: one.name)
def test_a_training_step_does_not_wait(one: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    module: LightningModule = build(one).cuda()
    connect(module)
    on_device = moved(batch(one))
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    module.on_train_start()
    module.training_step(on_device, 0)  # the first one loads kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            module.training_step(on_device, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    own = [w for w in caught if "synchroniz" in str(w.message) and "torchmetrics" not in w.filename]
    assert not own, [f"{w.filename}:{w.lineno}" for w in own]
