"""Tell a Slack channel, through an incoming webhook, what changed.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/
"""

from .store import KEYS, Change

#: Seconds for the connect, and for the answer.
TIMEOUT = 5.0


class NotTold(Exception):
    """Slack did not take the message; it can be tried again."""


def message(change: Change) -> str:
    """Put a change in words."""
    if change.old is None:
        return f"The manifest is watched now. Its version is {change.new}."
    text = f"The manifest changed from version {change.old} to {change.new}."
    if change.keys:
        more = ", …" if len(change.keys) > KEYS else ""
        text += f" Changed: {', '.join(change.keys[:KEYS])}{more}."
    return text


def tell(url: str, change: Change) -> None:
    """Send ``change`` to the webhook ``url``. Raises ``NotTold``."""
    import urllib3  # 1 MiB in each process, most of which never tell anybody

    # The address of a webhook is a secret: it stands in no message and no log line.
    # https://docs.slack.dev/messaging/formatting-message-text/#escaping
    text = message(change).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    with urllib3.PoolManager(timeout=TIMEOUT, retries=False) as http:
        try:
            response = http.request("POST", url, json={"text": text})
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NotTold(f"Slack cannot be reached: {type(error).__name__}.") from None
    if response.status != 200:
        raise NotTold(f"Slack answered {response.status}: {response.data[:100]!r}.")
