"""The house inspects itself: what a reader may rely on without looking."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from squall.faults import kinds

ROOT = Path(__file__).parents[2]
ROOMS = sorted(p.parent for p in (ROOT / "src/squall/faults").glob("*/__init__.py"))
TRACKED = subprocess.run(
    ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
).stdout.split("\0")[:-1]
MODULES = [ROOT / name for name in TRACKED if name.endswith(".py") and (ROOT / name).exists()]
LONGEST_MODULE = 300
LONGEST_TESTS = 400
LONGEST_FUNCTION = 60
HEADINGS = [
    "What it does",
    "What may be asked",
    "How it acts",
    "How it is proved",
    "What it leaves behind",
]
LOADED = """
import sys, squall.faults
squall.faults.kinds()
print(*(name for name in sys.modules if name.endswith(("injector", "probe", "striker"))))
"""


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_has_all_its_files(room):
    for name in ("model.py", "probe.py", "README.md", "example.yaml", "tests"):
        assert (room / name).exists(), f"{room.name} lacks {name}"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_rooms_manual_has_its_five_headings(room):
    found = re.findall(r"^## (.+)$", (room / "README.md").read_text(), re.MULTILINE)
    assert found == HEADINGS


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_rooms_example_is_of_its_kind(room):
    documents = list(yaml.safe_load_all((room / "example.yaml").read_text()))
    assert documents
    assert all(document["kind"] in kinds() for document in documents)


def test_finding_rooms_imports_no_injector_and_no_probe():
    run = [ROOT / ".venv/bin/python", "-c", LOADED]
    found = subprocess.run(run, capture_output=True, check=True, text=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_modules_and_functions_are_short(module):
    text = module.read_text()
    tests = "tests" in module.parts
    assert text.count("\n") <= (LONGEST_TESTS if tests else LONGEST_MODULE)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_nothing_committed_is_binary():
    for name in TRACKED:
        path = ROOT / name
        assert not path.exists() or b"\0" not in path.read_bytes()[:8000], name


def test_every_decision_says_what_it_costs():
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert len(pages) >= 10
    for page in pages:
        text = page.read_text()
        for part in ("Context", "Decision", "What it costs", "What would change our mind"):
            assert f"**{part}.**" in text, f"{page.name} lacks {part}"


def test_links_between_documents_lead_somewhere():
    for name in TRACKED:
        if not name.endswith(".md"):
            continue
        page = ROOT / name
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{name} links to {link}"


def test_every_make_target_explains_itself():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE):
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target
