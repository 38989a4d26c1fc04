"""One picture and one table of several tested runs: distortion, distance and pixel variance over the rate.

    python -m modules.dplc.curve --zero runs/dplc/tiny_wasserstein/000 --codes runs/code2/000 runs/code8/000 \
        --autoencoders runs/cae2/000 runs/cae8/000 --output curve

reads ``result.json`` of runs that ``train.py test`` has measured and writes curve.png, curve.json and, from the runs'
``draws.test.png``, curve_images.png. At zero rate stand samples of the generator, whose distortion is that of a random
image.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, float]
CELL = 64


def tested(run: Path) -> dict[str, float]:
    """What ``test`` measured, without the prefix ``test/``.

    Raises:
        FileNotFoundError: if the run has not been tested.
    """
    file = run / "result.json"
    content = json.loads(file.read_text()) if file.is_file() else {}
    if "test" not in content:
        raise FileNotFoundError(f"no test in {file}: run train.py test on it first")
    return {name.removeprefix("test/"): value for name, value in content["test"]["metrics"].items()}


def of_samples(metrics: Row) -> Row:
    """The zero-rate end of a curve, of a tested run of stage 1."""
    return {"bpp": 0.0} | {n.removeprefix("sample_"): v for n, v in metrics.items() if n.startswith("sample_")}


def table_of(zero: Path | None, codes: list[Path], autoencoders: list[Path]) -> dict[str, list[Row]]:
    """Rows by decoder, ordered by rate."""
    rows = [of_samples(tested(zero))] if zero else []
    table = {"DPLC": rows + [tested(run) for run in codes], "autoencoder": [tested(run) for run in autoencoders]}
    return {name: sorted(part, key=lambda row: row["bpp"]) for name, part in table.items()}


def with_ratios(table: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Adds ``mse_ratio`` to DPLC's rows: their distortion over the autoencoder's of the same rate."""
    least = {row["bpp"]: row["mse"] for row in table["autoencoder"]}
    codes = [
        row | ({"mse_ratio": row["mse"] / least[row["bpp"]]} if row["bpp"] in least else {}) for row in table["DPLC"]
    ]
    return table | {"DPLC": codes}


def draw_curves(table: dict[str, list[Row]], path: Path) -> None:
    """A panel for each measure, with its interval where there is one.

    The interval of a distance may lie below it: few samples make a distance too large, which the interval allows for.
    """
    names = {name for rows in table.values() for row in rows for name in row}
    distances = sorted(n for n in names if n.startswith(("frechet", "fid")) and not n.endswith(("_low", "_high")))
    panels = ["mse", *distances, "pixel_variance"]
    figure, row = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.3), layout="constrained", squeeze=False)
    for axes, measure in zip(row[0], panels, strict=True):
        for decoder, rows in table.items():
            points = [r for r in rows if measure in r]
            (line,) = axes.plot(*([r[name] for r in points] for name in ("bpp", measure)), marker="o", label=decoder)
            between = [r for r in points if f"{measure}_low" in r]
            ends = ([r[name] for r in between] for name in ("bpp", f"{measure}_low", f"{measure}_high"))
            axes.vlines(*ends, colors=line.get_color(), linewidth=4, alpha=0.4)
        axes.set(xlabel="bits per pixel", title=measure)
        axes.set_xscale("symlog", linthresh=1 / 128)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    row[0, 0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_images(runs: list[Path], draws: int, images: int, scale: int, path: Path) -> None:
    """Rows of images; columns: the image, then ``draws`` draws of each run, from their draws.test.png."""
    sheets = [np.asarray(Image.open(run / "draws.test.png")) for run in runs]
    columns = [sheets[0][:, :CELL]] + [sheet[:, CELL : CELL * (1 + draws)] for sheet in sheets]
    picture = Image.fromarray(np.concatenate([column[: CELL * images] for column in columns], 1))
    picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST).save(path)


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Curves over the rate of runs that were tested.")
    parser.add_argument("--zero", type=Path, help="a run of stage 1")
    parser.add_argument("--codes", type=Path, nargs="*", default=[], help="runs of stage 2")
    parser.add_argument("--autoencoders", type=Path, nargs="*", default=[], help="runs of the CAE baseline")
    parser.add_argument("--draws", type=int, default=2, help="columns of each run of stage 2 in the picture")
    parser.add_argument("--images", type=int, default=8, help="rows of the picture")
    parser.add_argument("--scale", type=int, default=1, help="side of a pixel in the picture")
    parser.add_argument("--output", type=Path, required=True, help="name of the files without their endings")
    arguments = parser.parse_args(args)
    try:
        table: dict[str, Any] = with_ratios(table_of(arguments.zero, arguments.codes, arguments.autoencoders))
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")
        draw_curves(table, arguments.output.with_suffix(".png"))
        runs = [*arguments.autoencoders, *arguments.codes]
        draw_images(runs, arguments.draws, arguments.images, arguments.scale, Path(f"{arguments.output}_images.png"))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
