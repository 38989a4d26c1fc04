"""A reader who knows one method's folder knows all of them: the pages have the same sections and name every file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("modules/*/README.md"))
SECTIONS = ["Train", "Use", "Results", "Choices", "Files", "Limits"]


def sections_of(page: Path) -> dict[str, str]:
    """Title -> text, of the second level; code is no title."""
    without_code = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^## (.+)$", without_code, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_sections_in_order(page: Path) -> None:
    assert list(sections_of(page)) == SECTIONS
    assert all(text.strip() for text in sections_of(page).values()) or "```" in page.read_text()
    assert page.read_text().startswith("# ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_table_of_files_is_whole(page: Path) -> None:
    table = sections_of(page)["Files"]
    assert "| file | what it holds |\n|---|---|\n" in table
    cells = re.findall(r"^\| (.+?) \|", table, flags=re.MULTILINE)[1:]
    named = set(re.findall(r"\w+\.py", " ".join(cells)))
    files = {path.name for path in page.parent.glob("*.py")} - {"__init__.py"}
    assert files <= named, f"not in the table: {sorted(files - named)}"
    missing = [
        name for name in named if not any(ROOT.glob(f"modules/**/{name}")) and not any(ROOT.glob(f"c*/**/{name}"))
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_pictures_and_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_every_method_has_a_module_and_a_page() -> None:
    folders = {path.parent for path in ROOT.glob("modules/*/module.py")}
    assert folders == {page.parent for page in PAGES} and len(folders) == 11
