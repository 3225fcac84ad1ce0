"""Which answers are accepted, and what a refused one is told."""

from __future__ import annotations

import re
import tomllib

import pre_gen_project
import pytest
from pre_gen_project import Refused
from support import PROJECT_FOLDER, ROOT

ROOT_OF_PROJECT = sorted((ROOT / PROJECT_FOLDER).iterdir())

GOOD_ANSWERS = {
    "project_name": "My App",
    "project_slug": "my_app",
    "description": "Counts birds",
    "author_name": "Ada Lovelace",
    "author_email": "ada@example.com",
    "domain_name": "example.com",
    "python_version": "3.13",
    "license": "MIT",
    "database": "none",
    "process_manager": "both",
    "use_heroku": "no",
    "use_swarm": "no",
    "include_examples": "yes",
}

# What a shell, YAML or nginx reads as something else than text
SPECIAL = " \t\n\"'`\\$&;|<>(){}[]*?!#~^=%,:@/"

REFUSED = [
    ("project_slug", "", "my_app"),
    ("project_slug", "class", "class_app"),
    ("project_slug", "match", "match_app"),
    ("project_slug", "json", "json_app"),
    ("project_slug", "compression", "compression_app"),
    ("project_slug", "test", "test_app"),
    ("project_slug", "tests", "tests_app"),
    ("project_slug", "smoke", "smoke_app"),
    ("project_slug", "deploy", "deploy_app"),
    ("project_slug", "docs", "docs_app"),
    ("project_slug", "instance", "instance_app"),
    ("project_slug", "devtools", "devtools_app"),
    ("project_slug", "flask_background", "flask_background_app"),
    ("project_slug", "license", "license_app"),
    ("project_slug", "flask", "flask_app"),
    ("project_slug", "celery", "celery_app"),
    ("project_slug", "redis", "redis_app"),
    ("project_slug", "kombu", "kombu_app"),
    ("project_slug", "gunicorn", "gunicorn_app"),
    ("project_slug", "limits", "limits_app"),
    ("project_slug", "prometheus_client", "prometheus_client_app"),
    ("project_slug", "dotenv", "dotenv_app"),
    ("project_slug", "redbeat", "redbeat_app"),
    ("project_slug", "con", "con_app"),
    *(
        ("project_slug", name, f"{name}_app")
        for name in (
            "root",
            "nobody",
            "mail",
            "backup",
            "sshd",
            "ubuntu",
            "systemd",
            "network",
            "default",
            "cron",
            "nginx",
            "postgres",
            "docker",
            "true",
            "null",
            "on",
            "y",
        )
    ),
    ("project_slug", "9lives", "lives"),
    ("project_slug", "_birds", "birds"),
    ("project_slug", "my-app", "my_app"),
    ("project_slug", "my app", "my_app"),
    ("project_slug", "MyApp", "myapp"),
    ("project_slug", "my__app", "my_app"),
    ("project_slug", "my_app_", "my_app"),
    ("project_slug", "a/b", "a_b"),
    ("project_slug", "../up", "up"),
    ("project_slug", "my.app", "my_app"),
    ("project_slug", "vögel", "v_gel"),
    ("project_slug", "my_app\n", "my_app"),
    ("project_slug", "class ", "my_app"),
    ("project_slug", "x" * 31, "my_app"),
    ("project_slug", "x" * 200, "my_app"),
    ("project_name", "", "My App"),
    ("project_name", " \n ", "My App"),
    ("project_name", "x" * 61, "My App"),
    ("description", "", "Counts the birds in my garden"),
    ("description", "bell \x07", "Counts the birds in my garden"),
    ("description", "x" * 301, "Counts the birds in my garden"),
    ("author_name", "turned \u202e round", "Ada Lovelace"),
    ("author_email", "", "you@example.com"),
    ("author_email", "ada.example.com", "you@example.com"),
    ("author_email", "ada@", "you@example.com"),
    ("author_email", "@example.com", "you@example.com"),
    ("author_email", "ada@b@example.com", "you@example.com"),
    ("author_email", "ada@example", "you@example.com"),
    ("author_email", "ada b@example.com", "you@example.com"),
    ("author_email", "Ada <ada@example.com>", "you@example.com"),
    ("author_email", 'a"b@example.com', "you@example.com"),
    ("author_email", ".ada@example.com", "you@example.com"),
    ("author_email", "-ada@example.com", "you@example.com"),
    *(("author_email", f"a{mark}b@example.com", "you@example.com") for mark in SPECIAL),
    *(("author_email", f"ada@exam{mark}ple.com", "you@example.com") for mark in SPECIAL),
    *(("domain_name", f"exam{mark}ple.com", "example.com") for mark in SPECIAL.replace("@", "")),
    ("domain_name", "", "example.com"),
    ("domain_name", "https://birds.example.com", "birds.example.com"),
    ("domain_name", "birds.example.com/app", "birds.example.com"),
    ("domain_name", "birds.example.com:8000", "birds.example.com"),
    ("domain_name", "Birds.Example.com", "birds.example.com"),
    ("domain_name", "birds.example.com.", "birds.example.com"),
    ("domain_name", "vögel.example.com", "xn--vgel-5qa.example.com"),
    ("domain_name", "birds_app.example.com", "example.com"),
    ("domain_name", "-birds.example.com", "example.com"),
    ("domain_name", "birds..example.com", "example.com"),
    ("domain_name", "localhost", "example.com"),
    ("domain_name", "192.0.2.7", "example.com"),
    ("domain_name", f"{'x' * 64}.example.com", "example.com"),
    ("python_version", "3.11", "3.13"),
    ("license", "mit", "MIT"),
    ("database", "mysql", "none"),
    ("process_manager", "none", "both"),
    ("use_heroku", "y", "no"),
    ("use_swarm", "y", "no"),
    ("include_examples", "True", "yes"),
]

FREE_TEXT = [
    "it's Ada's",
    'says "hello"',
    "both \" and '",
    "ends in a backslash \\",
    r"C:\new\table",
    "{{ cookiecutter.nothing }} {% if %} {# no comment",
    "{{",
    "<script>alert(1)</script> & more",
    "two\nlines",
    "tab\tand line\r\nend\u2028too",
    "Zoë 🦜 鳥 👩‍👩‍👧",
    "# no comment: [a](b) $HOME `id` %s ${{ x }}",
]

ACCEPTED = [
    *(("project_slug", slug) for slug in ("a", "my_app", "x1", "a_1_b", "birds", "x" * 30)),
    *((question, text) for question in ("description", "author_name") for text in FREE_TEXT),
    ("author_email", "ada+birds@mail.example.co.uk"),
    ("author_email", "Ada.Lovelace@Example.com"),
    ("domain_name", "birds.example.com"),
    ("domain_name", "xn--vgel-5qa.example.com"),
    ("domain_name", "a.io"),
    *(
        (question, answer)
        for question, all_of in pre_gen_project.CHOICES.items()
        for answer in all_of
    ),
]


@pytest.mark.parametrize(("question", "answer", "example"), REFUSED)
def test_a_bad_answer_is_refused_in_one_sentence(question: str, answer: str, example: str) -> None:
    with pytest.raises(Refused) as refusal:
        pre_gen_project.check({**GOOD_ANSWERS, question: answer})
    sentence = str(refusal.value)
    assert sentence.startswith(f'{question} "')
    assert sentence.endswith(f", for example {example}.")
    assert "\n" not in sentence
    assert len(sentence) < 250


@pytest.mark.parametrize(("question", "answer"), ACCEPTED)
def test_a_good_answer_is_accepted(question: str, answer: str) -> None:
    pre_gen_project.check({**GOOD_ANSWERS, question: answer})


@pytest.mark.parametrize(("question", "example"), sorted({(q, e) for q, _, e in REFUSED}))
def test_the_example_in_a_refusal_is_itself_accepted(question: str, example: str) -> None:
    pre_gen_project.check({**GOOD_ANSWERS, question: example})


@pytest.mark.parametrize("question", ["use_heroku", "use_swarm"])
def test_sqlite_is_refused_where_no_machine_keeps_its_file(question: str) -> None:
    with pytest.raises(Refused, match=rf"{question} does not keep.*for example postgresql\.$"):
        pre_gen_project.check({**GOOD_ANSWERS, "database": "sqlite", question: "yes"})


def test_the_typed_slug_is_judged_even_if_the_folder_got_a_safe_name() -> None:
    answers = {**GOOD_ANSWERS, "project_slug": "refused-answer", "__project_slug_typed": "a/b"}
    with pytest.raises(Refused, match='project_slug "a/b"'):
        pre_gen_project.check(answers)


def test_a_cookiecutter_that_computes_nothing_from_the_answers_is_told_so() -> None:
    answers = {**GOOD_ANSWERS, "__distribution_name": "[[= cookiecutter.project_slug =]]"}
    with pytest.raises(Refused, match=r"cookiecutter is too old .* 2\.6"):
        pre_gen_project.check(answers)


def test_no_name_at_the_root_of_the_project_can_be_a_slug() -> None:
    names = {path.stem if path.suffix == ".py" else path.name for path in ROOT_OF_PROJECT}
    slugs = {name.lower() for name in names if pre_gen_project.SLUG.fullmatch(name.lower())}
    assert {"devtools", "license", "tests"} <= slugs
    for slug in slugs:
        with pytest.raises(Refused):
            pre_gen_project.check_slug(slug)


def test_every_package_in_the_lock_file_is_refused_as_a_slug() -> None:
    lock = (ROOT / PROJECT_FOLDER / "uv.lock").read_text(encoding="utf-8")
    names = {
        re.sub(r"[-.]+", "_", package["name"].lower())
        for package in tomllib.loads(re.sub(r"(?m)^\{%.*\n", "", lock))["package"]
        if "cookiecutter" not in package["name"]
    }
    assert names - pre_gen_project.DEPENDENCY_NAMES == set()
