"""Plugins are listed without being imported, loaded one at a time, and joined by those of other packages."""

import sys

import pytest

from microtome.core.discovery import discover, pick
from microtome.core.errors import ConfigError

BOMB = "STUDY = 'made'\nraise RuntimeError('imported')\n"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A package `plugins_<n>` on the path, and a maker of entry points of the group `toy.studies`."""
    name = f"plugins_{tmp_path.name.replace('-', '_')}"
    root = tmp_path / name
    (root / "folder").mkdir(parents=True)
    (root / "bare_folder").mkdir()
    files = {
        "__init__.py": "raise RuntimeError('the package was imported')",
        "alone.py": "STUDY = 'alone'",
        "typed.py": "STUDY: str = 'typed'",
        "folder/__init__.py": "from os.path import sep as STUDY",
        "bomb.py": BOMB,
        "shared.py": "def helper():\n    STUDY = 1",
        "_hidden.py": "STUDY = 'hidden'",
        "notes.txt": "STUDY = 1",
    }
    for file, body in files.items():
        (root / file).write_text(body)
    monkeypatch.syspath_prepend(tmp_path)

    def entry(distribution: str, points: str):
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[toy.studies]\n{points}\n")

    yield name, root, entry
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


def test_listing_imports_nothing_and_finds_files_and_folders_that_assign_the_name(house):
    name, _, entry = house
    entry("other", f"outside = {name}.alone:STUDY")
    assert list(discover(name, "STUDY", "toy.studies")) == ["alone", "bomb", "folder", "outside", "typed"]
    assert not [m for m in sys.modules if m.startswith(name)]


def test_loading_imports_the_one_asked_for(house):
    name, root, entry = house
    (root / "__init__.py").write_text("")
    entry("other", f"outside = {name}.alone:STUDY")
    found = discover(name, "STUDY", "toy.studies")
    assert pick(found, "alone", "study") == found["outside"]() == "alone"
    assert f"{name}.typed" not in sys.modules
    with pytest.raises(RuntimeError, match="imported"):
        found["bomb"]()


def test_what_cannot_be_found_is_refused_by_name(house):
    name, root, entry = house
    (root / "__init__.py").write_text("")
    with pytest.raises(ConfigError) as caught:
        pick(discover(name, "STUDY", "toy.studies"), "alon", "study")
    assert str(caught.value) == "No study 'alon'; there are: alone, bomb, folder, typed. Did you mean 'alone'?"
    with pytest.raises(ConfigError, match="Plugins were asked for in 'no_such_package', found no such package"):
        discover("no_such_package", "STUDY", "toy.studies")
    entry("broken", f"broken = {name}.alone:OTHER")
    with pytest.raises(ConfigError, match=f"asked for {name}.alone:OTHER, found no 'OTHER'; assign OTHER at the top"):
        discover(name, "STUDY", "toy.studies")["broken"]()
    entry("twin", "alone = elsewhere.mine:STUDY")
    with pytest.raises(ConfigError, match=f"called 'alone': {name}.alone and elsewhere.mine; rename one"):
        discover(name, "STUDY", "toy.studies")
