"""Bring a release to the server and switch to it. Run by `flask deploy release HOST`."""

import shlex

from pyinfra import host
from pyinfra.operations import files, server

from deploy.vps.common import NAME, receive_files_in_private, settings

name = shlex.quote(host.data.release)
release = f"/opt/{NAME}/releases/{name}"

receive_files_in_private()
files.put(name="Upload", src=host.data.archive, dest=f"{release}.tar.gz", mode="600", user="root")
server.shell(
    name="Unpack",
    commands=[f"mkdir {release} && tar -xzf {release}.tar.gz -C {release}; rm {release}.tar.gz"],
)
server.shell(name="Build and ask", commands=[f"cd {release} && deploy/vps/build"])
server.shell(
    name="Switch",
    commands=[f"{release}/deploy/vps/activate {name} {settings['keep_releases']}"],
)
