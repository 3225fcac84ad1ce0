"""How a project is finished after cookiecutter wrote it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import post_gen_project
import pytest
from pre_gen_project import CHOICES

ANSWERS = {
    "project_slug": "birds",
    "include_examples": "yes",
    "database": "postgresql",
    "process_manager": "both",
    "use_heroku": "yes",
    "use_swarm": "yes",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a small project that has one file of each option."""
    for name in (
        "birds/__init__.py",
        "birds/models.py",
        "birds/manifest/tasks.py",
        "birds/manifests.py",
        "tests/test_manifest_store.py",
        "tests/test_health.py",
        "deploy/systemd/web.service",
        "deploy/supervisor/app.conf",
        "deploy/swarm/stack.yaml",
        "Procfile",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    return tmp_path


def names(project: Path) -> set[str]:
    """Return the files and folders at the ends of the tree."""
    every = (path for path in project.rglob("*") if path.is_file() or not any(path.iterdir()))
    return {path.relative_to(project).as_posix() for path in every}


@pytest.mark.parametrize(
    ("question", "answer", "gone"),
    [
        ("include_examples", "no", {"birds/manifest/tasks.py", "tests/test_manifest_store.py"}),
        ("database", "none", {"birds/models.py"}),
        ("process_manager", "systemd", {"deploy/supervisor/app.conf"}),
        ("process_manager", "supervisor", {"deploy/systemd/web.service"}),
        ("process_manager", "both", set()),
        ("use_heroku", "no", {"Procfile"}),
        ("use_swarm", "no", {"deploy/swarm/stack.yaml"}),
    ],
)
def test_what_was_not_chosen_is_dropped_and_nothing_else(
    project: Path, question: str, answer: str, gone: set[str]
) -> None:
    before = names(project)
    answers = {**ANSWERS, question: answer}
    post_gen_project.drop(project, post_gen_project.left_out(project, answers))
    assert names(project) == before - gone


def test_a_folder_that_became_empty_goes_too(project: Path) -> None:
    names = ("systemd", "supervisor", "swarm")
    post_gen_project.drop(project, [project / "deploy" / name for name in names])
    assert not (project / "deploy").exists()


def test_the_table_asks_only_for_answers_that_exist() -> None:
    for question, by_answer in post_gen_project.LEFT_OUT.items():
        assert set(by_answer) <= set(CHOICES[question])


def test_the_secrets_are_written_once_and_for_their_owner(project: Path) -> None:
    assert post_gen_project.write_env(project)
    env = project / ".env"
    first = env.read_text(encoding="utf-8")
    assert stat.S_IMODE(env.stat().st_mode) == 0o600 or os.name == "nt"
    assert not post_gen_project.write_env(project)
    assert env.read_text(encoding="utf-8") == first


def test_a_file_in_a_folder_that_goes_too_may_be_named_as_well(project: Path) -> None:
    post_gen_project.drop(project, [project / "deploy", project / "deploy/systemd/web.service"])
    assert not (project / "deploy").exists()
