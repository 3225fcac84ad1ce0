"""The files that Heroku reads: app.json by the published rules, Procfile, workflow.

The rules of app.json are those of https://devcenter.heroku.com/articles/app-json-schema (as of
January 2024) and of the JSON Schema that Heroku publishes with its MCP server
(github.com/heroku/heroku-mcp-server, src/utils/app-json.schema.json, version 1.0.7):

- the document has no other members than those of the schema; all are optional
- name is 30 characters at most, of letters, digits, hyphens, underscores and full stops, and
  begins with none of the digits; description and success_url are strings, keywords a list of them
- env: names of upper-case letters, digits and underscores; a value is an object with no other
  members than description, value (a string), required (true or false) and generator ("secret")
- formation: by process type, each with a quantity of 0 or more and a known size, no other members
- addons: strings or objects with plan, and no other members than plan, as and options
- buildpacks: objects with url alone
- scripts: postdeploy and pr-predestroy, which are strings
- environments: test, review and production, which may override env, formation, addons, buildpacks
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from matrix import ODD_TEXT, Project, render_all
from support import Answers, distinct

MEMBERS = {
    "addons", "buildpacks", "description", "env", "environments", "formation", "image", "keywords",
    "logo", "name", "repository", "scripts", "stack", "success_url", "website",
}  # fmt: skip
SIZES = {
    "eco", "basic", "standard-1x", "standard-2x", "performance-m", "performance-l", "private-s",
    "private-m", "private-l", "shield-s", "shield-m", "shield-l",
}  # fmt: skip


def check(document: dict[str, Any]) -> None:
    """Fail unless document follows the rules."""
    assert set(document) <= MEMBERS, set(document) - MEMBERS
    assert re.fullmatch(r"[A-Za-z_.-][A-Za-z0-9_.-]{0,29}", document["name"]), document["name"]
    assert all(isinstance(document.get(name, ""), str) for name in ("description", "success_url"))
    assert all(isinstance(word, str) for word in document.get("keywords", []))
    check_environment(document)
    scripts = document.get("scripts", {})
    assert set(scripts) <= {"postdeploy", "pr-predestroy"}
    assert all(isinstance(script, str) for script in scripts.values())
    environments = document.get("environments", {})
    assert set(environments) <= {"test", "review", "production"}
    for name, environment in environments.items():
        allowed = {"env", "formation", "addons", "buildpacks"} | (
            {"scripts"} if name == "test" else set()
        )
        assert set(environment) <= allowed, name
        check_environment(environment)


def check_environment(document: dict[str, Any]) -> None:
    """Fail unless the members that an environment may override follow the rules."""
    for name, variable in document.get("env", {}).items():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*", name), name
        assert set(variable) <= {"description", "value", "required", "generator"}, name
        assert isinstance(variable.get("description", ""), str), name
        assert isinstance(variable.get("value", ""), str), name
        assert isinstance(variable.get("required", True), bool), name
        assert variable.get("generator", "secret") == "secret", name
        assert not ("value" in variable and "generator" in variable), name
    for process, size in document.get("formation", {}).items():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", process), process
        assert set(size) <= {"quantity", "size"}, process
        assert type(size["quantity"]) is int and size["quantity"] >= 0, process
        assert size.get("size", "basic") in SIZES, process
    for addon in document.get("addons", []):
        if not isinstance(addon, str):
            assert isinstance(addon["plan"], str) and set(addon) <= {"plan", "as", "options"}
    for buildpack in document.get("buildpacks", []):
        assert set(buildpack) == {"url"} and isinstance(buildpack["url"], str)


@pytest.fixture
def chosen(everything: list[Project]) -> list[Project]:
    """Return the projects with files for Heroku, one of each kind."""
    made = [one for one in everything if one.answers.get("use_heroku") == "yes"]
    return list(distinct(made, lambda one: one.text("app.json") + one.text("Procfile")))


def test_app_json_follows_the_published_rules(chosen: list[Project]) -> None:
    assert chosen
    for project in chosen:
        check(json.loads(project.text("app.json")))


def test_long_and_odd_answers_make_a_good_app_json(template: Path, tmp_path: Path) -> None:
    sheets: list[Answers] = [
        {"use_heroku": "yes", "project_slug": "x" * 30, "description": "é" * 300},
        {**ODD_TEXT, "project_slug": "odd", "use_heroku": "yes", "include_examples": "no"},
    ]
    for project in render_all(template, tmp_path / "made", sheets):
        document = json.loads(project.text("app.json"))
        check(document)
        assert len(document["description"]) <= 140


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "1st"},
        {"name": "app", "colour": "red"},
        {"name": "app", "env": {"SECRET_KEY": {"generator": "random"}}},
        {"name": "app", "env": {"PORT": {"value": 80}}},
        {"name": "app", "formation": {"web": {"quantity": 1, "size": "hobby-dev"}}},
        {"name": "app", "formation": {"web": {"size": "basic"}}},
        {"name": "app", "buildpacks": ["heroku/python"]},
        {"name": "app", "environments": {"staging": {}}},
    ],
)
def test_what_breaks_a_rule_is_noticed(wrong: dict[str, Any]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check(wrong)


def test_app_json_and_procfile_name_the_same_processes(chosen: list[Project]) -> None:
    for project in chosen:
        document = json.loads(project.text("app.json"))
        processes = re.findall(r"^(\w+): ", project.text("Procfile"), re.MULTILINE)
        assert set(processes) == {"release", *document["formation"]}, f"{project}"
        assert set(document["environments"]["review"]["formation"]) == set(document["formation"])


def test_every_variable_of_app_json_is_explained(chosen: list[Project]) -> None:
    for project in chosen:
        document = json.loads(project.text("app.json"))
        names = {*document["env"], *document["environments"]["review"]["env"]}
        explained = re.findall(r"^(?:# )?([A-Z_]+)=", project.text(".env.example"), re.MULTILINE)
        # What `flask` loads is no setting of the application; .flaskenv says it on your machine.
        assert names - {"FLASK_APP"} <= set(explained), f"{project}"


def test_the_workflow_waits_for_the_tests(chosen: list[Project]) -> None:
    for project in chosen:
        workflow = yaml.safe_load(project.text(".github/workflows/heroku.yml"))
        tests = yaml.safe_load(project.text(".github/workflows/ci.yml"))
        trigger = workflow[True]["workflow_run"]  # YAML reads the key "on" as true
        assert trigger == {
            "workflows": [tests["name"]],
            "branches": ["main"],
            "types": ["completed"],
        }
        (job,) = workflow["jobs"].values()
        assert "conclusion == 'success'" in job["if"]
        checkout = job["steps"][0]["with"]
        assert checkout["ref"] == "${{ github.event.workflow_run.head_sha }}"
        # A key in an address would land in messages.
        assert "secrets" not in "".join(step.get("run", "") for step in job["steps"])
