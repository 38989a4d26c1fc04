"""Which files a process takes, by option and by the variables of launchers."""

import pytest

from cli.parts import LAUNCHERS, WHOLE, Part, chosen_part


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("total", [1, 2, 5])
def test_every_position_is_in_one_part(total: int) -> None:
    parts = [Part(number, total) for number in range(total)]
    assert [sum(part.takes(position) for part in parts) for position in range(11)] == [1] * 11
    assert Part(1, 3).takes(4) and not Part(1, 3).takes(3) and str(Part(1, 3)) == "part 2 of 3"


@pytest.mark.parametrize(("text", "part"), [("1/1", WHOLE), ("2/8", Part(1, 8)), ("8/8", Part(7, 8)), (None, WHOLE)])
def test_by_option(text: str | None, part: Part) -> None:
    assert chosen_part(text) == part


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", ""])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--part is K/N with K from 1 to N, such as 2/8, not"):
        chosen_part(text)


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"RANK": "3", "WORLD_SIZE": "4"}, Part(3, 4)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, Part(1, 2)),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Part(0, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, WHOLE),  # a batch script, which runs once
        ({"RANK": "1"}, WHOLE),
    ],
)
def test_by_launchers(variables: dict, part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert chosen_part(None) == part
    assert chosen_part("2/9") == Part(1, 9)


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("x", "2"), ("0", ""), ("-1", "2")])
def test_variables_that_say_nothing(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ValueError, match=f"RANK={rank} and WORLD_SIZE={world} say no part of a whole: set --part"):
        chosen_part(None)
