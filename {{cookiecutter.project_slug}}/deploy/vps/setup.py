"""Make a fresh server ready for the application; a second run changes nothing.

Run by `flask deploy setup HOST`. How pyinfra works: https://docs.pyinfra.com/en/3.x/
"""

{% if cookiecutter.database != "none" %}
from deploy.vps import common, database, machine, processes, redis_server, website
{% else %}
from deploy.vps import common, machine, processes, redis_server, website
{% endif %}

machine.check_system()
machine.refuse_what_is_not_ours()
common.receive_files_in_private()
machine.install_packages()
machine.make_user_and_folders()
machine.install_uv()
redis_server.make_secrets()
redis_server.run()
redis_server.back_up()
{% if cookiecutter.database != "none" %}
database.make()
{% endif %}
processes.install()
machine.limit_journal()
machine.add_swap()
machine.close_firewall()
website.serve()
