"""Get the certificate and serve the site over HTTPS: the last step of `flask deploy setup`."""

from deploy.vps import common, website

common.receive_files_in_private()
website.get_certificate()
