"""What the documents promise and can be checked without running anything."""

import re
import subprocess
from pathlib import Path

import pytest
import typer

from squall.api.cluster import NODE_FAULT
from squall.cli import program
from squall.faults import kinds
from squall.injection.served import served_kinds

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
).stdout.split("\0")[:-1]
PAGES = [ROOT / name for name in TRACKED if name.endswith(".md") and (ROOT / name).exists()]
MAKEFILE = (ROOT / "Makefile").read_text()
README = (ROOT / "README.md").read_text()
COMMAND = typer.main.get_command(program())
VERBS = dict(COMMAND.commands)
WRITTEN = [kind.resource for kind in served_kinds(kinds()) if kind.resource != NODE_FAULT]
SPOKEN = re.compile(
    r"(?:^ {4,}(?:\(?sudo )?|`(?:sudo )?)(?:\.venv/bin/)?squall ([a-z]+(?:-[a-z]+)*)", re.MULTILINE
)
STARTED = re.compile(r"(?:^ {4,}|`)make ((?:[a-z0-9-]+ ?)+)", re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_every_option_of_it_says_what_it_is(verb):
    assert VERBS[verb].help, verb
    for parameter in VERBS[verb].params:
        assert parameter.help, f"squall {verb}: {parameter.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_speak_of_no_verb_and_no_target_that_is_not_there(page):
    text = page.read_text()
    assert set(SPOKEN.findall(text)) <= set(VERBS)
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", MAKEFILE, re.MULTILINE))
    assert {word for words in STARTED.findall(text) for word in words.split()} <= targets


def test_every_verb_stands_in_a_document():
    spoken = {verb for page in PAGES for verb in SPOKEN.findall(page.read_text())}
    assert set(VERBS) <= spoken


def test_the_readme_names_the_two_commands_and_every_stage():
    stages = re.search(r"^test: (.*?) ##", MAKEFILE, re.MULTILINE)
    for target in ("demo", "test", *stages[1].split()):
        assert f"make {target}" in README, target


@pytest.mark.parametrize("resource", WRITTEN, ids=lambda resource: resource.kind)
def test_every_kind_has_a_page_in_the_reference(resource):
    page = ROOT / f"docs/reference/{resource.kind.lower()}.md"
    assert page.exists(), "make generate writes it"


def test_every_native_subcommand_is_explained():
    main = (ROOT / "native/src/main.rs").read_text()
    explained = (ROOT / "native/README.md").read_text()
    subcommands = re.findall(r'^ {8}"([a-z]+)" =>', main, re.MULTILINE)
    assert subcommands
    for name in subcommands:
        assert f"| `{name}` |" in explained, name


def test_every_package_stands_in_the_plan_of_the_house():
    plan = (ROOT / "docs/architecture.md").read_text()
    for package in sorted((ROOT / "src/squall").glob("*/__init__.py")):
        assert f"`{package.parent.name}/" in plan, package.parent.name


def test_pictures_refer_to_nothing_outside():
    for name in TRACKED:
        if name.endswith(".svg"):
            addresses = re.findall(r"\w+://[^\"\s]+", (ROOT / name).read_text())
            assert set(addresses) <= {"http://www.w3.org/2000/svg"}, name
