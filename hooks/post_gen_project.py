"""Finish a generated project: drop what was not chosen, write its secrets, say what comes next.

Cookiecutter renders this file with the answers and runs the result inside the new project; tests
import it as it stands. It needs nothing but the standard library, opens no connection, and leaves
the project in place whatever happens. Each import makes every generation slower: it has few.
"""

import os
import shutil
import sys
from pathlib import Path

# The hook that ran before has refused all that could not stand in quotes.
ANSWERS = {
    "project_slug": "{{ cookiecutter.project_slug }}",
    "include_examples": "{{ cookiecutter.include_examples }}",
    "database": "{{ cookiecutter.database }}",
    "process_manager": "{{ cookiecutter.process_manager }}",
    "use_heroku": "{{ cookiecutter.use_heroku }}",
    "use_swarm": "{{ cookiecutter.use_swarm }}",
}

# Question -> answer -> what that answer leaves out, as glob patterns below the project's folder.
# PACKAGE stands for the folder of the application's package.
LEFT_OUT = {
    "include_examples": {
        "no": [
            "PACKAGE/demo",
            "PACKAGE/manifest",
            "PACKAGE/migrations/versions/0002_versions.py",
            "PACKAGE/templates/demo",
            "PACKAGE/templates/manifest",
            "smoke/tasks.py",
            "smoke/test_demo*.py",
            "smoke/test_manifest.py",
            "smoke/test_rate_limit.py",
            "tests/test_demo*.py",
            "tests/test_manifest*.py",
        ],
    },
    "database": {
        "none": [
            "PACKAGE/migrations",
            "PACKAGE/models.py",
            "PACKAGE/ops/database.py",
            "PACKAGE/templates/manifest/versions.html",
            "docs/database*.md",
            "flask_background/database",
            "tests/test_database.py",
            "devtools/dev/services/postgres.py",
            "deploy/database",
            "deploy/vps/database.py",
        ],
        "sqlite": [
            "devtools/dev/services/postgres.py",
            "deploy/database/postgresql*",
            "flask_background/database/postgresql.py",
        ],
        "postgresql": ["deploy/database/sqlite*", "flask_background/database/sqlite.py"],
    },
    "process_manager": {
        "systemd": ["deploy/supervisor", "docs/supervisor*.md"],
        "supervisor": ["deploy/systemd", "docs/systemd*.md"],
    },
    "use_heroku": {
        "no": [
            ".github/workflows/heroku.yml",
            ".slugignore",
            "PACKAGE/heroku.py",
            "PACKAGE/ops/move.py",
            "Procfile",
            "app.json",
            "docs/heroku*.md",
            "tests/integration/test_move.py",
            "tests/test_heroku.py",
        ],
    },
    "use_swarm": {
        "no": ["deploy/swarm", "devtools/deploy/swarm", "docs/swarm*.md"],
    },
}

ENV_FILE = """\
# Secrets and settings of this machine. Git ignores this file: never commit it.
# .env.example explains each setting.
FLASK_CONFIG=development
SECRET_KEY={secret_key}
API_TOKEN={api_token}
"""

NEXT = """
{slug} is ready. Start it:

    cd {folder}
    uv sync
    uv run flask dev
"""

UV_MISSING = """
uv is not on this machine yet: `python3 -m pip install --user uv`, or see https://docs.astral.sh/uv.
"""


def left_out(project: Path, answers: dict[str, str]) -> list[Path]:
    """Return the files and folders in project that the answers leave out."""
    package = answers["project_slug"]
    return sorted(
        {
            path
            for question, by_answer in LEFT_OUT.items()
            for pattern in by_answer.get(answers[question], [])
            for path in project.glob(pattern.replace("PACKAGE", package))
        }
    )


def drop(project: Path, paths: list[Path]) -> None:
    """Remove paths, and the folders below project that are empty without them."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # it may have gone with its folder
    for folder in {
        folder for path in paths for folder in path.parents if project in folder.parents
    }:
        if folder.is_dir() and not any(file.is_file() for file in folder.rglob("*")):
            shutil.rmtree(folder)


def write_env(project: Path) -> bool:
    """Write .env with fresh secrets, readable by its owner alone; return False if there is one."""
    try:
        file = os.open(project / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(file, "w", encoding="utf-8", newline="\n") as env:
        # What secrets.token_hex() does, without its imports
        env.write(ENV_FILE.format(secret_key=os.urandom(48).hex(), api_token=os.urandom(32).hex()))
    return True


def way_to(project: Path) -> str:
    """Return what to give to cd to get from the folder that cookiecutter was called in to project.

    Cookiecutter has changed the working directory by now, so that folder is known from the shell.
    """
    if Path(os.environ.get("PWD", project.parent)) == project.parent:
        return project.name
    return f'"{project}"' if " " in str(project) else str(project)


def main() -> int:
    """Finish the project in the current folder and return the exit code for cookiecutter."""
    project = Path.cwd()
    drop(project, left_out(project, ANSWERS))
    write_env(project)
    print(NEXT.format(slug=project.name, folder=way_to(project)))
    if shutil.which("uv") is None:
        print(UV_MISSING)
    return 0


if __name__ == "__main__":
    sys.exit(main())
