"""Teams: a workflow that starts with "When a Teams webhook request is received" posts our Adaptive Card.

Texts are ``RichTextBlock`` elements, which do not interpret Markdown, so that a machine named ``[x](javascript:y)`` is
shown literally.
Source: learn.microsoft.com, Adaptive Cards, "Text features", and Teams, "Create an incoming webhook with Workflows".
"""

from __future__ import annotations

from typing import Any

from patchwave.domain.notifications.messages import Message, Tone
from patchwave.outbound.notifications.sender import JSON_HEADERS, Outgoing, json_body
from patchwave.settings import Channel

_COLORS = {Tone.PLAIN: "Accent", Tone.GOOD: "Good", Tone.ATTENTION: "Attention"}


def teams_request(channel: Channel, message: Message) -> Outgoing:
    """The message as an Adaptive Card 1.4. Teams allows 28 KB, which the limits of facts and notes respect."""
    shown = [_line(_run(message.title, size="Large", weight="Bolder", color=_COLORS[message.tone]))]
    shown += [_line(_run(f"{label}: ", weight="Bolder"), _run(text)) for label, text in message.facts]
    shown += [_line(_run(f"• {note}")) for note in message.notes]
    if message.command:
        shown.append(_line(_run(message.command, fontType="Monospace"), spacing="Medium"))
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        # For places that only show text, such as a phone's banner.
        "fallbackText": message.title,
        "msteams": {"width": "Full"},
        "body": shown,
    }
    attached = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    body = json_body({"type": "message", "attachments": [attached]})
    return Outgoing(channel.url.get_secret_value(), body, JSON_HEADERS)


def _line(*runs: dict[str, Any], spacing: str = "Small") -> dict[str, Any]:
    return {"type": "RichTextBlock", "spacing": spacing, "inlines": list(runs)}


def _run(text: str, **style: str) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **style}
