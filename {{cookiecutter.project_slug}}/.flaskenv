# Read by every `flask` command on your machine. A server does not have this file: it loads the application itself.
FLASK_APP=devtools
