"""Slack: an incoming webhook takes ``blocks``, and ``text`` for where blocks cannot be shown.

``&``, ``<`` and ``>`` start all of Slack's markup (mentions such as ``<!channel>``, links), so they are escaped in
every text; ``verbatim`` disables automatic links and mentions.
Source: docs.slack.dev, "Formatting message text" and the references of text object, header and section.
"""

from __future__ import annotations

from typing import Any

from patchwave.domain.notifications.messages import Message
from patchwave.outbound.notifications.sender import JSON_HEADERS, Outgoing, json_body
from patchwave.settings import Channel


def escape(text: str) -> str:
    """The text with Slack's markup escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack_request(channel: Channel, message: Message) -> Outgoing:
    """The message as blocks: a section for the title, for every fact and note, and for the command.

    A section allows 3,000 characters and a message 50 blocks; a fact has at most 300, five times that when escaped.
    """
    sections = [f"*{escape(message.title)}*"]
    sections += [f"*{escape(label)}:* {escape(text)}" for label, text in message.facts]
    sections += [f"• {escape(note)}" for note in message.notes]
    if message.command:
        sections.append(f"`{escape(message.command)}`")
    payload = {
        "text": escape(message.title),
        "blocks": [_section(text) for text in sections],
        "unfurl_links": False,
        "unfurl_media": False,
    }
    return Outgoing(channel.url.get_secret_value(), json_body(payload), JSON_HEADERS)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}
