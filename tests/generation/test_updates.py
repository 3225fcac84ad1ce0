"""A project made with cruft takes over what changed in the template since."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from matrix import ODD_TEXT
from support import (
    PROJECT_FOLDER,
    ROOT,
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
#: The last commit in which the engine was `my_app/background`.
BEFORE_THE_MOVE = "958c64a906713eba8532dfe0e7a2d696f74c791c"


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """Return a git repository that holds the template, with one commit."""
    copy = tmp_path / "cookiecutter-flask-celery"
    shutil.copytree(template, copy)
    git_commit_all(copy, "Template")
    return copy


@pytest.fixture
def before_the_move(tmp_path: Path) -> Path:
    """Return a git repository that holds the version in which the engine was in the application."""
    if run("git", "cat-file", "-e", f"{BEFORE_THE_MOVE}^{{commit}}", cwd=ROOT).returncode:
        pytest.skip("the history of the template is not here: git fetch --unshallow")
    copy = tmp_path / "cookiecutter-flask-celery"
    copy.mkdir()
    archive = tmp_path / "before.tar"
    succeed("git", "archive", "--output", archive, BEFORE_THE_MOVE, cwd=ROOT)
    with tarfile.open(archive) as tar:
        tar.extractall(copy, filter="data")
    git_commit_all(copy, "Before the move")
    return copy


def move(repository: Path, template: Path) -> None:
    """Put the template as it is now into the repository, and commit it."""
    git("rm", "-r", "--quiet", ".", cwd=repository)
    shutil.copytree(template, repository, dirs_exist_ok=True)
    git_commit_all(repository, "The move")


def edit(file: Path, old: str, new: str) -> None:
    """Change a file as its owner might."""
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file}: {old}"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


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


def test_the_move_into_rooms_keeps_what_the_owner_changed(
    before_the_move: Path, template: Path, tmp_path: Path, report: Report
) -> None:
    project = create(before_the_move, tmp_path / "work", {})
    own_view = '\n\n@bp.get("/mine")\ndef mine() -> str:\n    return "mine"\n'
    edit(project / "my_app/demo/tasks.py", "_MOST_STEPS = 100", "_MOST_STEPS = 250")
    with (project / "my_app/main/routes.py").open("a", encoding="utf-8") as routes:
        routes.write(own_view)
    (project / "my_app/reports.py").write_text("from .background import progress\n")
    git_commit_all(project, "Edit")

    move(before_the_move, template)
    succeed(*CRUFT, "update", "--skip-apply-ask", cwd=project)

    expected = render(template, tmp_path / "fresh", {})
    edit(expected / "my_app/demo/tasks.py", "_MOST_STEPS = 100", "_MOST_STEPS = 250")
    with (expected / "my_app/main/routes.py").open("a", encoding="utf-8") as routes:
        routes.write(own_view)
    (expected / "my_app/reports.py").write_text("from .background import progress\n")
    updated = {name: text for name, text in files(project).items() if not name.startswith(".git/")}
    wanted = files(expected)
    del updated[".cruft.json"], updated[".env"], wanted[".env"]
    assert updated == wanted
    report.add("cruft", "the version before the move was updated; the owner's changes are there")


def test_what_an_owner_changed_in_the_engine_is_not_lost_by_the_move(
    before_the_move: Path, template: Path, tmp_path: Path
) -> None:
    """The file stays where it was, or the change moves with it, or a .rej beside it tells."""
    project = create(before_the_move, tmp_path / "work", {})
    engine = project / "my_app" / "background"
    edit(engine / "settings.py", '"result_expires": 3600', '"result_expires": 7201')
    edit(engine / "heartbeat.py", "INTERVAL = 5", "INTERVAL = 4.25")
    git_commit_all(project, "Edit")

    move(before_the_move, template)
    done = run(*CRUFT, "update", "--skip-apply-ask", cwd=project)

    assert "my_app/background/heartbeat.py" in done.stdout + done.stderr
    now = {name: text for name, text in files(project).items() if not name.startswith(".git/")}
    assert [name for name, text in now.items() if b'"result_expires": 7201' in text]
    assert [name for name, text in now.items() if b"INTERVAL = 4.25" in text]
    left = {path.name for path in engine.iterdir()} if engine.exists() else set()
    assert left <= {"settings.py", "settings.py.rej", "heartbeat.py", "heartbeat.py.rej"}
    assert (project / "flask_background" / "app.py").exists()


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
