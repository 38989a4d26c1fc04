"""Records of a study against the lists of outcomes in the shipped configs, and beside records of an older version."""

from pathlib import Path

import pytest
import torch
import yaml

from callbacks.reports.study_table import group, write_csv
from modules.subspace.study import ClusteringStudy

CONFIGS = Path(__file__).parents[3] / "configs" / "subspace"
NEW = ("true_positive_rate", "false_positive_rate", "true_l1", "false_l1", "no_false_connections")


def records(draws: int = 2) -> list[dict]:
    study = ClusteringStudy({"omp": {"solver": "omp", "max_atoms": [1, 2]}}, restarts=1)
    points = torch.randn(24, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.arange(24).numpy() % 2
    return [{"noise": 0.5, "draw": draw} | record for draw in range(draws) for record in study.examine(points, label)]


def measured(name: str) -> list[str]:
    callbacks = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["trainer"]["callbacks+"]
    return next(each["init_args"]["measured"] for each in callbacks if each["class_path"].endswith("StudyTable"))


@pytest.mark.parametrize(
    "name", ["faces", "phase_density", "phase_noise", "phase_noise_density", "sensitivity", "sensitivity_faces"]
)
def test_shipped_tables_have_a_line_for_each_run(name: str) -> None:
    """An outcome that the list leaves out would make a line of every draw."""
    table = group(records(), measured(name))
    assert [(line["with_max_atoms"], line["draws"]) for line in table] == [(1, 2), (2, 2)]
    assert all(f"{key}_stderr" in table[0] for key in NEW)


def test_a_resumed_study_keeps_the_records_without_the_new_outcomes(tmp_path: Path) -> None:
    mixed = records()
    for record in mixed[:2]:  # the first draw, as an older version left it
        for key in NEW:
            del record[key]
    [one, two] = group(mixed, measured("sensitivity"))
    assert (one["draws"], two["draws"]) == (2, 2)
    assert one["true_l1"] == mixed[2]["true_l1"] and two["true_l1"] == mixed[3]["true_l1"]
    write_csv(tmp_path / "draws.csv", mixed)
    header, first, *_ = (tmp_path / "draws.csv").read_text().splitlines()
    assert set(NEW) <= set(header.split(",")) and first.count(",") == header.count(",")


def test_an_entry_needs_all_of_its_options() -> None:
    """An option given alone on the command line replaces the entry."""
    with pytest.raises(ValueError, match=r"algorithms\.lasso names no solver.*give all"):
        ClusteringStudy({"lasso": {"alpha": 10.0}})
