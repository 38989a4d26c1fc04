"""Command lines without a whole experiment get the missing half named."""

import pytest

from cli.hints import check


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("", "name a subcommand and an experiment: python train.py fit --config"),
        ("--trainer.devices=2", "name a subcommand"),
        ("--config configs/l3c/quickstart.yaml fit", r"comes first: python train.py fit --config \.\.\."),
        ("--config=x.yaml --seed_everything 3 test", r"comes first: python train.py test --config=x.yaml \.\.\."),
        ("fit", "fit needs an experiment: --config .*configs/l3c/quickstart.yaml"),
        ("predict --ckpt_path best", "predict needs an experiment"),
        ("fit --config configs/l3c/overlays/rgb.yaml", "--config configs/l3c/<experiment>.yaml --config .*rgb.yaml"),
        ("fit --config=a/overlays/b.yaml --config a/overlays/c.yaml", "overlays/b.yaml is an overlay"),
        ("fit --config configs/l3c/overlays/rgb.yaml --config=x.yaml", "rgb.yaml is an overlay .* which comes before"),
        ("fit --config=a/overlays/b.yaml --config a/x.yaml --print_config", "b.yaml is an overlay"),
        ("fit --config", "fit needs an experiment"),
    ],
)
def test_what_is_missing(line: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        check(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "fit --config configs/l3c/quickstart.yaml",
        "test --config=x.yaml --ckpt_path best",
        "fit --config x.yaml --config configs/l3c/overlays/rgb.yaml",
        "fit --model tests.toys.Toy --data tests.toys.Points",
        "fit --model=tests.toys.Toy --data=tests.toys.Points",
        "fit --config=x.yaml --config configs/l3c/overlays/rgb.yaml",
        "fit --model tests.toys.Toy --config configs/l3c/overlays/rgb.yaml",
        "fit --print_config",
        "fit --help",
        "--help",
        "-h",
        "trian --config x.yaml",
    ],
)
def test_whole_lines_pass(line: str) -> None:
    check(line.split())
