"""What holds for every project that the template can make, whatever the answers."""

from __future__ import annotations

import ast
import html.parser
import json
import re
import tomllib
from functools import cache
from pathlib import Path, PurePosixPath

import post_gen_project
import pytest
import yaml
from matrix import Project, render_all
from support import Report, digest, distinct, env_values, python_files, run, succeed

# What the answers leave in a name or a text when the template forgot to render it.
LEFTOVER = re.compile(
    rb"cookiecutter\s*[.\[]|\{\{\s*cookiecutter|\[\[[=%#]|[=%#]\]\]|refused.answer"
)
JINJA = re.compile(rb"\{\{|\{%|\{#")
# Jinja's marks are no leftover where Flask renders the file; a workflow has GitHub's own, a script
# Docker's.
OWN_MARKS = re.compile(
    r"[^/]+/(templates|static)/.*|\.github/workflows/.*|.*\.py|\.env|uv\.lock|deploy/swarm/certificate\.sh"
)

# A page may include a part that is there only with the examples.
OPTIONAL_INCLUDE = re.compile(r"\{% include .* ignore missing %\}")


def test_no_template_mark_is_left(everything: list[Project]) -> None:
    for project in everything:
        # An answer may bring such marks; then they are no leftover.
        marks_in_answers = "{{" in project.answers.get("description", "")
        for path, content in project.files.items():
            found = LEFTOVER.search(content.replace(b"cookiecutter-flask-celery", b""))
            assert found is None, f"{project}: {path} has {found}"
            assert "{" not in path, f"{project}: {path}"
            if not marks_in_answers and not OWN_MARKS.fullmatch(path):
                found = JINJA.search(content)
                assert found is None, f"{project}: {path} has {found}"


def test_no_file_or_folder_is_empty(everything: list[Project]) -> None:
    for project in everything:
        for path, content in project.files.items():
            may_be = PurePosixPath(path).name in {"__init__.py", "py.typed", ".gitkeep"}
            assert may_be or content.strip(), f"{project}: {path} is empty"
            assert not content.strip() or content.endswith(b"\n"), f"{project}: {path}: last line"
            assert not path.endswith((".pyc", ".orig", ".rej")), f"{project}: {path}"
        for folder in project.path.rglob("*/"):
            assert any(folder.iterdir()), f"{project}: {folder} is empty"


def test_every_file_parses(everything: list[Project], report: Report) -> None:
    @cache
    def parse(kind: str, content: str) -> None:
        match kind:
            case ".py":
                compile(content, "project", "exec", flags=ast.PyCF_ONLY_AST)
            case ".toml" | ".lock":
                tomllib.loads(content)
            case ".yml" | ".yaml":
                assert list(yaml.safe_load_all(content))
            case ".json":
                json.loads(content)
            case ".html":
                html.parser.HTMLParser().feed(content)

    kinds = (".py", ".toml", ".lock", ".yml", ".yaml", ".json", ".html")
    parsed = 0
    for project in everything:
        for path, content in project.files.items():
            kind = PurePosixPath(path).suffix
            if kind in kinds:
                parsed += 1
                try:
                    parse(kind, content.decode("utf-8"))
                except (SyntaxError, ValueError, yaml.YAMLError) as error:
                    pytest.fail(f"{project}: {path}: {error}")
    different = parse.cache_info().currsize
    report.add("parse", f"{parsed} Python, TOML, YAML, JSON and HTML files, {different} different")


def test_free_text_arrives_unchanged_but_for_line_breaks(special: list[Project]) -> None:
    for project in special:
        about = tomllib.loads(project.text("pyproject.toml"))["project"]
        config = ast.parse(project.text(f"{project.slug}/config.py"))
        strings = {node.value for node in ast.walk(config) if isinstance(node, ast.Constant)}
        for question, arrived in (
            ("description", {about["description"]} & strings),
            ("project_name", strings),
            ("author_name", {about["authors"][0]["name"]}),
        ):
            if question in project.answers:
                assert " ".join(project.answers[question].split()) in arrived, f"{project}"


def test_what_was_not_chosen_is_gone_and_all_else_is_there(matrix: list[Project]) -> None:
    whole = {
        path: left_out
        for project in matrix
        for path in project.files
        if not (left_out := post_gen_project.left_out(project.path, dict(full(project))))
    }
    for project in matrix:
        answers = full(project)
        assert post_gen_project.left_out(project.path, answers) == [], f"{project}"
        gone = {
            path
            for path in whole
            for question, by_answer in post_gen_project.LEFT_OUT.items()
            for pattern in by_answer.get(answers[question], [])
            if matches(path, pattern.replace("PACKAGE", project.slug))
        }
        assert set(project.files) == set(whole) - gone, f"{project}"


def full(project: Project) -> dict[str, str]:
    """Return all answers that the table of what is left out asks for."""
    return {"project_slug": project.slug, **project.answers}


def matches(path: str, pattern: str) -> bool:
    """Tell whether a pattern of the table names path or a folder above it."""
    pure = PurePosixPath(path)
    depth = len(PurePosixPath(pattern).parts)
    return PurePosixPath(*pure.parts[:depth]).match(pattern)


def test_no_file_mentions_what_the_answers_left_out(matrix: list[Project]) -> None:
    marks = {
        ("include_examples", "no"): r"(?<!aof\.)manifest|\bdemos?\b|demo_|_demo|start-task|slack",
        ("use_heroku", "no"): r"heroku|procfile|dyno",
        ("use_swarm", "no"): r"swarm",
        ("database", "none"): r"postgres|sqlite|alembic|psycopg|database_url|docs/database",
        ("process_manager", "systemd"): r"deploy/supervisor",
        ("process_manager", "supervisor"): r"deploy/systemd",
    }
    for project in matrix:
        unwanted = [mark for given, mark in marks.items() if given in project.answers.items()]
        if not unwanted:
            continue
        pattern = re.compile("|".join(unwanted), re.IGNORECASE)
        for path, content in project.files.items():
            if path != "uv.lock":
                text = OPTIONAL_INCLUDE.sub("", content.decode("utf-8", "replace"))
                found = pattern.search(f"{path}\n{text}")
                assert found is None, f"{project}: {path} mentions {found}"


def test_no_file_is_an_orphan(matrix: list[Project]) -> None:
    """Each module, page, static file and document is named by some other file."""
    for project in distinct(matrix, lambda one: digest(*map(str.encode, one.files))):
        for path in project.files:
            name = name_to_look_for(path, project.slug)
            if name is None:
                continue
            word = re.compile(rf"\b{re.escape(name)}\b")
            others = (text for other, text in project.files.items() if other != path)
            assert any(word.search(text.decode("utf-8", "replace")) for text in others), (
                f"{project}: nothing names {path}"
            )


def name_to_look_for(path: str, package: str) -> str | None:
    """Return how other files name the file at path, or None if none has to."""
    top, *below = PurePosixPath(path).parts
    stem, suffix = PurePosixPath(path).stem, PurePosixPath(path).suffix
    if "migrations" in below:
        return None  # they follow each other by their numbers
    if top == package and suffix == ".py":
        return None if stem in {"__init__", "__main__", "celery_app"} else stem
    if top == "docs" or (top == package and below[0] in {"templates", "static"}):
        return stem + suffix
    return None


def test_links_between_documents_lead_somewhere(everything: list[Project]) -> None:
    link = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
    for project in everything:
        for path in project.files:
            if path.endswith(".md"):
                for target in link.findall(project.text(path)):
                    there = (project.path / path).parent / target
                    assert there.exists(), f"{project}: {path} links to {target}"


def test_two_renders_differ_in_their_secrets_alone(
    template: Path, tmp_path: Path, matrix: list[Project], special: list[Project], report: Report
) -> None:
    # Every fifth: no question has five answers, so that each answer is among them.
    chosen = matrix[::5] + special
    again = render_all(template, tmp_path / "again", [project.answers for project in chosen])
    for first, second in zip(chosen, again, strict=True):
        one, two = ({**project.files} for project in (first, second))
        assert one.pop(".env") != two.pop(".env"), f"{first}"
        assert one == two, f"{first}"
    every = matrix + special + again
    secrets = [
        value
        for project in every
        for name, value in env_values(project.path).items()
        if name != "FLASK_CONFIG"
    ]
    assert len(set(secrets)) == len(secrets) == 2 * len(every)
    report.add("renders", f"{len(again)} a second time: equal but for the secrets")
    report.add("secrets", f"{len(secrets)} written, no two alike")


def relevant(project: Project, *extra: str, table: str) -> str:
    """Return a hash of all that a Python tool reads: the Python files and its configuration."""
    settings = tomllib.loads(project.text("pyproject.toml"))["tool"][table]
    return digest(
        *(path.encode() + b"\0" + project.files[path] for path in python_files(project.files)),
        repr(settings).encode(),
        *(part.encode() for part in extra),
    )


def test_ruff_has_nothing_to_say(everything: list[Project], tools: Path, report: Report) -> None:
    ruff = tools / "ruff"
    checked = list(distinct(everything, lambda project: relevant(project, table="ruff")))
    for project in checked:
        for command in (("check", "--no-cache"), ("format", "--check", "--diff", "--no-cache")):
            done = run(ruff, *command, cwd=project.path)
            assert done.returncode == 0, f"{project}\n{done.stdout}{done.stderr}"
    report.add("ruff", f"{len(everything)} renders, {len(checked)} different: check and format")


def test_mypy_has_nothing_to_say(
    everything: list[Project], tools: Path, tmp_path: Path, report: Report
) -> None:
    checked = list(
        distinct(everything, lambda one: relevant(one, one.python_version, table="mypy"))
    )
    mypy = tools / "mypy"
    for project in checked:
        version = project.python_version
        cache_dir = tmp_path / version
        done = run(mypy, "--python-version", version, "--cache-dir", cache_dir, cwd=project.path)
        assert done.returncode == 0, f"{project}\n{done.stdout}{done.stderr}"
    report.add("mypy", f"{len(everything)} renders, {len(checked)} different: strict")
    report.add("mypy", "for Python 3.12, 3.13 and 3.14, on a 3.13; nothing was run on a 3.14")


def test_the_lock_file_matches(everything: list[Project], report: Report) -> None:
    checked = list(
        distinct(everything, lambda one: digest(one.files["pyproject.toml"], one.files["uv.lock"]))
    )
    for project in checked:
        # Any Python will do to compare the two files.
        succeed("uv", "lock", "--check", "--offline", "--python", "3.13", cwd=project.path)
    report.add("uv lock", f"{len(everything)} renders, {len(checked)} different: --check, offline")


def test_the_lock_file_names_nothing_of_the_machine_that_wrote_it(matrix: list[Project]) -> None:
    text = matrix[0].text("uv.lock")
    sources = [package["source"] for package in tomllib.loads(text)["package"]]
    (registry,) = {source["registry"] for source in sources if source != {"virtual": "."}}
    # One public index: neither a folder nor a mirror that asks for a password.
    assert re.fullmatch(r"https://[a-z.]+/simple", registry)
    assert not re.search(r"file:|://[^/\"]*@", text)


@pytest.mark.parametrize("question", ["include_examples"])
def test_no_line_of_the_table_of_what_is_left_out_is_dead(
    matrix: list[Project], question: str
) -> None:
    whole = max(matrix, key=lambda project: len(project.files))
    for patterns in post_gen_project.LEFT_OUT[question].values():
        for pattern in patterns:
            assert any(
                matches(path, pattern.replace("PACKAGE", whole.slug)) for path in whole.files
            ), f"no file matches {pattern}"
