"""What a user is told."""

from datamodules.loading.reporting import describe_skipped


def test_at_most_ten_names_are_given() -> None:
    assert describe_skipped({"odd": ["a", "b"]}) == "2 odd (a, b)"
    text = describe_skipped({"odd": [f"n{i}" for i in range(11)]})
    assert text.startswith("11 odd (n0, ")
    assert text.endswith("n9, ...)")
