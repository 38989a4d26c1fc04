"""The smallest systems of DPLC, random images, and a trainer that says nothing."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from callbacks.rng_state import RngState
from datamodules.images.thumbnails import Thumbnails
from datamodules.loading.loaders import as_it_is, evaluation_loader, training_loader
from modules.components.features import RandomFeatures
from modules.dplc.adversary import Adversary
from modules.dplc.compressor import Compressor
from modules.dplc.module import GenerativeModel
from modules.dplc.nets import CompressionNet, GenerativeNet

Adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.9))
LATENT = 16


class Noise64(LightningDataModule):
    """Random images, smooth over 16 pixels."""

    def __init__(self, train: int = 32, evaluated: int = 12, batch_size: int = 4) -> None:
        super().__init__()
        coarse = np.random.default_rng(0).integers(0, 256, (train + evaluated, 4, 4, 3), dtype=np.uint8)
        images = coarse.repeat(16, 1).repeat(16, 2)
        self.train, self.val = Thumbnails(images[:train]), Thumbnails(images[train:])
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        return training_loader(self.train, self.batch_size, 0, 0, self.trainer, collate_fn=as_it_is)

    def val_dataloader(self) -> DataLoader:
        return evaluation_loader(self.val, 5, 0, self.trainer, collate_fn=as_it_is)

    test_dataloader = val_dataloader


def adversary(**options: Any) -> Adversary:
    torch.manual_seed(6)
    return Adversary(2, **options)


def generative(encoder: bool = True, critic: Adversary | None = None, **options: Any) -> GenerativeModel:
    torch.manual_seed(0)
    options = {"optimizer": Adam, "critic_optimizer": Adam, "features": RandomFeatures(2)} | options
    return GenerativeModel(GenerativeNet(2, LATENT, encoder), adversary=critic, **options)


def compressor(channels: int = 3, noise: bool = True, **options: Any) -> Compressor:
    torch.manual_seed(0)
    small = {"variance_images": 6, "variance_draws": 5, "features": RandomFeatures(2), "mmd_weight": 10.0}
    options = {"optimizer": Adam, "critic_optimizer": Adam} | small | options
    return Compressor(CompressionNet(channels, 2, LATENT, noise), **options)


def saved_generator(path: Path, width: int = 2) -> str:
    """A checkpoint of stage 1 with nothing but the generator."""
    torch.manual_seed(5)
    state = GenerativeNet(width, LATENT).state_dict()
    torch.save({"state_dict": {f"network.{name}": value for name, value in state.items()}}, path)
    return str(path)


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    plain = {"accelerator": "cpu", "devices": 1, "enable_model_summary": False, "num_sanity_val_steps": 0}
    callbacks = [RngState(), *options.pop("callbacks", [])]
    return Trainer(**(quiet | plain | {"max_epochs": 1, "default_root_dir": folder, "callbacks": callbacks} | options))


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
