"""Generation as people start it: the command, its prompts, what it writes and where."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import support
from support import Answers, Report, env_values, files, git_commit_all, run, succeed

COOKIECUTTER = (sys.executable, "-m", "cookiecutter", "--default-config")

# Python imports this module at its start, in cookiecutter and in the hooks that it starts.
WITNESS = """\
import json, os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        raise PermissionError(f"{event} {arguments!r}")
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        with open(os.environ["WITNESS"], "a", encoding="utf-8") as file:
            file.write(json.dumps([event, str(arguments[1])]) + "\\n")

sys.addaudithook(note)
"""


@pytest.fixture
def command(template: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that gives the cookiecutter command for answers, with a home of its own."""

    def build(*options: str, source: str = str(template), **answers: str) -> list[str]:
        given = [f"{question}={answer}" for question, answer in answers.items()]
        return [*COOKIECUTTER, *options, source, *given]

    return build


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give cookiecutter a home folder of its own for what it remembers."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return an empty folder to call cookiecutter in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("question", "answer", "example"),
    [
        ("project_slug", "", "my_app"),
        ("project_slug", "class", "class_app"),
        ("project_slug", "celery", "celery_app"),
        ("project_slug", "my-app", "my_app"),
        ("project_slug", "nested/app", "nested_app"),
        ("project_slug", "../outside", "outside"),
        ("project_slug", "x" * 300, "my_app"),
        ("domain_name", "https://example.com/app", "example.com"),
        ("author_email", "ada.example.com", "you@example.com"),
        ("description", "a bell \x07", "Counts the birds in my garden"),
    ],
)
def test_a_bad_answer_ends_with_one_sentence_and_nothing_written(
    command: Callable[..., list[str]], work: Path, question: str, answer: str, example: str
) -> None:
    done = run(*command("--no-input", **{question: answer}), cwd=work)
    assert done.returncode == 1
    first_line = done.stderr.splitlines()[0]
    assert first_line.startswith(f'{question} "')
    assert first_line.endswith(f"for example {example}.")
    assert list(work.iterdir()) == []
    assert not (work.parent / "outside").exists()


def test_an_answer_that_is_no_choice_ends_without_a_project(
    command: Callable[..., list[str]], work: Path
) -> None:
    done = run(*command("--no-input", license="GPL"), cwd=work)
    assert done.returncode == 1
    assert "GPL provided for choice variable license" in done.stderr
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("mark", ["[[=", "[[%", "[[#"])
def test_an_answer_with_a_mark_of_the_template_ends_without_a_project(
    command: Callable[..., list[str]], work: Path, mark: str
) -> None:
    """Jinja stops before any hook, so the README names these marks."""
    done = run(*command("--no-input", description=f"birds {mark} bees"), cwd=work)
    assert done.returncode == 1
    assert "TemplateSyntaxError" in done.stderr
    assert list(work.iterdir()) == []
    assert f"`{mark}`" in (support.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_prompts_are_sentences_and_enter_takes_the_default(
    command: Callable[..., list[str]], work: Path
) -> None:
    questions = json.loads((support.ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    asked = [question for question in questions if not question.startswith("_")]
    done = subprocess.run(
        command(), cwd=work, input="\n" * len(asked), capture_output=True, text=True, check=True
    )
    for question in asked:
        prompt = questions["__prompts__"][question]
        text = prompt if isinstance(prompt, str) else prompt["__prompt__"]
        assert text in " ".join(done.stdout.split())
        assert question not in done.stdout
    assert [path.name for path in work.iterdir()] == ["my_app"]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My App", "my_app"),
        ("  Vögel & Co: 2nd try!  ", "vogel_co_2nd_try"),
        ("2nd try", "nd_try"),
        ("🦜", "my_app"),
        ("A name that is much too long for a folder", "a_name_that_is_much_too_long_f"),
    ],
)
def test_the_slug_follows_from_the_name(
    command: Callable[..., list[str]], work: Path, name: str, slug: str
) -> None:
    succeed(*command("--no-input", project_name=name), cwd=work)
    assert [path.name for path in work.iterdir()] == [slug]


def test_generation_reaches_no_network_and_starts_nothing_but_its_hooks(
    command: Callable[..., list[str]], work: Path, tmp_path: Path, report: Report
) -> None:
    (tmp_path / "witness").mkdir()
    (tmp_path / "witness" / "sitecustomize.py").write_text(WITNESS, encoding="utf-8")
    log = tmp_path / "log"
    succeed(
        *command("--no-input"),
        cwd=work,
        PATH="",
        PYTHONPATH=str(tmp_path / "witness"),
        WITNESS=str(log),
    )
    started = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(started) == 2, started
    assert all(sys.executable in arguments for _, arguments in started), started
    report.add("generation", "reaches no network; starts its two hooks and no other program")


def test_the_end_of_generation_says_what_comes_next(
    command: Callable[..., list[str]], work: Path, tmp_path: Path
) -> None:
    here = succeed(*command("--no-input"), cwd=work, PWD=str(work))
    assert "my_app is ready" in here
    assert "    cd my_app\n    uv sync\n    uv run flask dev\n" in here
    there = succeed(*command("--no-input", "-o", str(tmp_path / "a b")), cwd=work, PWD=str(work))
    assert f'    cd "{tmp_path / "a b" / "my_app"}"\n' in there


def test_a_machine_without_uv_is_told_how_to_get_it(
    command: Callable[..., list[str]], work: Path
) -> None:
    assert "pip install --user uv" in succeed(*command("--no-input"), cwd=work, PATH="")


def test_the_env_file_belongs_to_its_owner_and_to_git_not_at_all(
    command: Callable[..., list[str]], work: Path
) -> None:
    succeed(*command("--no-input"), cwd=work)
    project = work / "my_app"
    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600 or os.name == "nt"
    values = env_values(project)
    assert values["FLASK_CONFIG"] == "development"
    assert len(values["SECRET_KEY"]) >= 43
    assert len(values["API_TOKEN"]) >= 43
    git_commit_all(project, "Start")
    assert ".env" not in support.git("ls-files", cwd=project).splitlines()


def test_an_existing_folder_is_left_as_it_is(command: Callable[..., list[str]], work: Path) -> None:
    succeed(*command("--no-input"), cwd=work)
    (work / "my_app" / "mine.txt").write_text("mine", encoding="utf-8")
    before = files(work)
    done = run(*command("--no-input"), cwd=work)
    assert done.returncode == 1
    assert "already exists" in done.stdout + done.stderr
    assert files(work) == before


def test_overwriting_keeps_the_secrets_and_other_peoples_files(
    command: Callable[..., list[str]], work: Path
) -> None:
    succeed(*command("--no-input"), cwd=work)
    (work / "my_app" / "mine.txt").write_text("mine", encoding="utf-8")
    before = files(work)
    succeed(*command("--no-input", "--overwrite-if-exists"), cwd=work)
    assert files(work) == before


def test_a_refused_answer_over_an_existing_folder_loses_nothing(
    command: Callable[..., list[str]], work: Path
) -> None:
    succeed(*command("--no-input"), cwd=work)
    before = files(work)
    options = ("--no-input", "--overwrite-if-exists")
    assert run(*command(*options, domain_name="a/b"), cwd=work).returncode == 1
    assert run(*command(*options, project_slug=""), cwd=work).returncode == 1
    assert files(work) == before


@pytest.mark.parametrize("source", ["git", "zip"])
def test_the_template_works_from_elsewhere(
    command: Callable[..., list[str]], template: Path, work: Path, tmp_path: Path, source: str
) -> None:
    copy = tmp_path / "elsewhere" / "cookiecutter-flask-celery"
    shutil.copytree(template, copy)
    if source == "git":
        git_commit_all(copy, "Template")
        place = f"git+{copy.as_uri()}"
    else:
        place = shutil.make_archive(str(copy), "zip", copy.parent, copy.name)
    done = run(*command("--no-input", source=place, project_slug="class"), cwd=work)
    assert done.stderr.startswith('project_slug "class"')
    succeed(*command("--no-input", source=place, description="{{ it's }}"), cwd=work)
    pyproject = tomllib.loads((work / "my_app" / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["description"] == "{{ it's }}"


def test_a_replay_of_the_last_answers_gives_the_same_project(
    command: Callable[..., list[str]], work: Path, tmp_path: Path
) -> None:
    answers: Answers = {"project_slug": "birds", "description": '{{ 1 }} \\ "it\'s"'}
    succeed(*command("--no-input", **answers), cwd=work)
    again = tmp_path / "again"
    succeed(*command("--replay", "-o", str(again)), cwd=work)
    first, second = files(work / "birds"), files(again / "birds")
    assert first.pop(".env") != second.pop(".env")
    assert first == second
