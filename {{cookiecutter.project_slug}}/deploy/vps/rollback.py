"""Go back to the release before the running one. Run by `flask deploy rollback HOST`."""

from pyinfra.operations import server

from deploy.vps.common import NAME

server.shell(
    name="Switch to the release before",
    commands=[f"/opt/{NAME}/current/deploy/vps/activate --previous"],
)
