"""A project made with cruft takes over what changed in the template since."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from matrix import ODD_TEXT
from support import (
    PROJECT_FOLDER,
    Answers,
    Report,
    env_values,
    files,
    git,
    git_commit_all,
    render,
    run,
    succeed,
)

CRUFT = (sys.executable, "-m", "cruft")


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """Return a git repository that holds the template, with one commit."""
    copy = tmp_path / "cookiecutter-flask-celery"
    shutil.copytree(template, copy)
    git_commit_all(copy, "Template")
    return copy


def create(repository: Path, folder: Path, answers: Answers) -> Path:
    """Make a project with cruft and commit it."""
    folder.mkdir()
    options = ("--no-input", "--default-config", "--extra-context", json.dumps(answers))
    succeed(*CRUFT, "create", str(repository), *options, cwd=folder)
    project = next(folder.iterdir())
    git_commit_all(project, "Start")
    return project


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {**ODD_TEXT, "project_slug": "odd", "include_examples": "no", "use_heroku": "yes"},
    ],
    ids=["defaults", "odd"],
)
def test_an_update_brings_the_change_and_keeps_what_the_owner_edited(
    repository: Path, tmp_path: Path, answers: Answers, report: Report
) -> None:
    project = create(repository, tmp_path / "work", answers)
    secrets = env_values(project)
    readme = project / "LICENSE"
    readme.write_text(readme.read_text(encoding="utf-8") + "\nMine.\n", encoding="utf-8")
    (project / "mine.txt").write_text("mine\n", encoding="utf-8")
    git_commit_all(project, "Edit")

    source = repository / PROJECT_FOLDER
    ignored = source / ".gitignore"
    ignored.write_text(ignored.read_text(encoding="utf-8") + "\n# New\n*.new\n", encoding="utf-8")
    (source / "NEW.md").write_text("{{ cookiecutter.project_slug }}\n", encoding="utf-8")
    git_commit_all(repository, "Change")

    assert run(*CRUFT, "check", cwd=project).returncode == 1
    succeed(*CRUFT, "update", "--skip-apply-ask", cwd=project)

    assert "*.new" in (project / ".gitignore").read_text(encoding="utf-8")
    assert (project / "NEW.md").read_text(encoding="utf-8") == f"{project.name}\n"
    assert readme.read_text(encoding="utf-8").endswith("\nMine.\n")
    assert (project / "mine.txt").exists()
    assert env_values(project) == secrets
    assert [path for path in files(project) if path.endswith(".rej")] == []
    assert succeed(*CRUFT, "check", cwd=project)
    changed = {line[3:] for line in git("status", "--short", cwd=project).splitlines()}
    assert changed == {".cruft.json", ".gitignore", "NEW.md"}
    report.add("cruft", f"created and updated a project with {len(answers) or 'default'} answers")


def test_cruft_makes_what_cookiecutter_makes(
    repository: Path, template: Path, tmp_path: Path
) -> None:
    by_cruft = files(create(repository, tmp_path / "one", {}))
    by_cookiecutter = files(render(template, tmp_path / "two", {}))
    for name in [name for name in by_cruft if name.startswith(".git/")]:
        del by_cruft[name]
    del by_cruft[".cruft.json"]
    assert by_cruft.pop(".env") != by_cookiecutter.pop(".env")
    assert by_cruft == by_cookiecutter


def test_cruft_refuses_a_bad_answer_with_the_same_sentence(
    repository: Path, tmp_path: Path
) -> None:
    answers = json.dumps({"project_slug": "flask"})
    options = ("--no-input", "--default-config", "--extra-context", answers)
    (tmp_path / "work").mkdir()
    done = run(*CRUFT, "create", str(repository), *options, cwd=tmp_path / "work")
    assert done.returncode != 0
    assert done.stderr.startswith('project_slug "flask" would hide a library')
    assert list((tmp_path / "work").iterdir()) == []
