"""Get the certificate, and serve the site over HTTPS. Run by `flask deploy setup HOST` at its end."""

from deploy.vps import common, website

common.receive_files_in_private()
website.get_certificate()
