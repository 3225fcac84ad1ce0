# Read by every `flask` command. Committed, so that nobody has to remember it.
FLASK_APP={{ cookiecutter.project_slug }}
