"""The mean over stretches of a record, in the module and in the classifier of files, against numpy's stretching."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modules.ecg.inference import load_classifier, predict_recording
from modules.ecg.module import ECG
from modules.ecg.nets import CNN
from modules.ecg.recordings import Recording
from modules.ecg.views import check_views
from tests.modules.ecg.wfdb_files import beats

NETWORK = {"num_blocks": 3, "layers_per_block": 1, "width": 4}
VIEWS = [0.8, 1.0, 1.2]


def module_with(views: list[float], **options: object) -> ECG:
    torch.manual_seed(3)
    return ECG(CNN(**NETWORK), views=views, **options).eval()  # type: ignore[arg-type]


def batch() -> dict[str, torch.Tensor]:
    signal = torch.zeros(3, 3000)
    for row, (seconds, irregular) in zip(signal, ((10, True), (8, False), (5, True)), strict=True):
        row[: 300 * seconds] = torch.from_numpy(beats(seconds, seconds, irregular).astype(np.float32))
    return {"signal": signal, "length": torch.tensor([3000, 2400, 1500]), "label": torch.tensor([1, 0, 2])}


def expected_probabilities(module: ECG, data: dict[str, torch.Tensor], views: list[float]) -> torch.Tensor:
    """Each record alone, stretched by numpy: sample i of the new one is at i * 18285 / (round(18286 v) - 1)."""
    rows = []
    for signal, length in zip(data["signal"], data["length"].tolist(), strict=True):
        each = []
        for view in views:
            at = np.arange(2 * length) * 18285 / (round(18286 * view) - 1)
            at = at[at <= length - 1]
            new = np.interp(at, np.arange(length), signal[:length].numpy()).astype(np.float32)
            each.append(module(torch.from_numpy(new)[None], torch.tensor([len(new)])).logits[0].softmax(0))
        rows.append(torch.stack(each).mean(0))
    return torch.stack(rows).detach()


def test_evaluation_averages_the_views_and_training_does_not() -> None:
    data = batch()
    module, logged = module_with(VIEWS, reduction="mean"), {}
    module.log = lambda key, value, **_: logged.update({key: value})  # type: ignore[method-assign]
    expected = expected_probabilities(module, data, VIEWS)
    one = expected_probabilities(module, data, [1.0])
    assert (expected - one).abs().max() > 1e-3
    predicted = module.predict_step({**data, "name": ["a", "b", "c"]}, 0)
    assert torch.allclose(torch.stack([predicted[c] for c in "NAO~"], 1), expected, atol=2e-5)
    module.validation_step(data, 0)
    true = expected.log().gather(1, data["label"][:, None])[:, 0]
    loss = -(module.class_weights[data["label"]] * true).mean()  # type: ignore[index]
    assert float(logged["val/loss"]) == pytest.approx(float(loss.detach()), rel=1e-4)
    module.test_step(data, 0)
    for split in ("val", "test"):
        assert torch.equal(module.matrices()[split].sum(0), torch.bincount(expected.argmax(1), minlength=4))
    plain = module_with([1.0], reduction="mean")
    plain.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    assert torch.equal(module.training_step(data, 0), plain.training_step(data, 0))


def test_a_view_does_not_depend_on_the_padding() -> None:
    data, module = batch(), module_with([1.3])
    wide = {**data, "signal": torch.nn.functional.pad(data["signal"], (0, 5000))}
    assert torch.allclose(module.log_probabilities(wide), module.log_probabilities(data), atol=1e-5)


def test_a_checkpoint_brings_its_views_to_predict(tmp_path: Path) -> None:
    module = module_with(VIEWS)
    settings = {"network": {"class_path": "modules.ecg.nets.CNN", "init_args": NETWORK}, "views": VIEWS}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": settings}, tmp_path / "three.ckpt")
    torch.save(
        {"state_dict": module.state_dict(), "hyper_parameters": {**settings, "views": [1.0]}}, tmp_path / "one.ckpt"
    )
    data = {key: value[:1] for key, value in batch().items()}
    signal = data["signal"][0].numpy()
    recording = Recording("x", 300.0, len(signal), lambda start, stop: signal[start:stop])
    predictions = {}
    for name, views in (("three", VIEWS), ("one", [1.0])):
        predictions[name] = predict_recording([load_classifier(tmp_path / f"{name}.ckpt")], recording, 60)
        expected = expected_probabilities(module, data, views)[0]
        assert predictions[name].probabilities == pytest.approx(expected.numpy(), abs=2e-5)
    steps = {name: len(prediction.times) for name, prediction in predictions.items()}
    assert 0 < steps["three"] < steps["one"]  # those of the shortest view
    assert np.allclose(predictions["three"].over_time.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("views", [[], [0.5], [1.0, 4 / 3], [float("nan")]])
def test_impossible_views(views: list[float]) -> None:
    with pytest.raises(ValueError, match=r"views must be one or more stretches from 2/3 to less than 4/3"):
        check_views(views, CNN(**NETWORK))  # type: ignore[arg-type]


def test_views_and_fixed_padding_exclude_each_other() -> None:
    leaky = CNN(**NETWORK, mask_padding=False)  # type: ignore[arg-type]
    assert check_views((1.0,), leaky) == (1.0,)
    with pytest.raises(ValueError, match="views need a network with mask_padding"):
        check_views([0.9, 1.0], leaky)


@pytest.mark.parametrize("views", [3, "often", [None], {}])
def test_strange_views_of_a_checkpoint_are_one_line(tmp_path: Path, views: object) -> None:
    settings = {"network": {"class_path": "modules.ecg.nets.CNN", "init_args": NETWORK}, "views": views}
    state = module_with([1.0]).state_dict()
    torch.save({"state_dict": state, "hyper_parameters": settings}, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match=r"odd\.ckpt: its views cannot be used: "):
        load_classifier(tmp_path / "odd.ckpt")
