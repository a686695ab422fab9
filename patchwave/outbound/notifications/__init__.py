"""Notification channels: one module per kind composes the request, and ``sender`` sends it.

>>> outgoing = compose(channel, announcement, delivery_id=notice.delivery_id(channel.name), now=now)
>>> delivery = await ChannelSender().post(outgoing)

Failures of a channel never raise: every result is a ``Delivery``.
"""

from __future__ import annotations

from datetime import datetime

from patchwave.domain.notifications.messages import Announcement
from patchwave.outbound.notifications.email import mail_request
from patchwave.outbound.notifications.sender import ChannelSender, Delivery, Outgoing
from patchwave.outbound.notifications.slack import slack_request
from patchwave.outbound.notifications.teams import teams_request
from patchwave.outbound.notifications.webhook import webhook_request
from patchwave.settings import Channel, ChannelKind


def compose(channel: Channel, announcement: Announcement, *, delivery_id: str, now: datetime) -> Outgoing:
    """Compose the request for a channel.

    Args:
        channel: the target.
        announcement: the content.
        delivery_id: a UUID, the same for every attempt, by which a receiver can detect repetitions.
        now: the time of this attempt, which signatures include.
    """
    match channel.kind:
        case ChannelKind.TEAMS:
            return teams_request(channel, announcement.to_message())
        case ChannelKind.SLACK:
            return slack_request(channel, announcement.to_message())
        case ChannelKind.WEBHOOK:
            return webhook_request(channel, announcement, delivery_id=delivery_id, now=now)
        case ChannelKind.MAIL:
            return mail_request(channel, announcement.to_message(), operation_id=delivery_id, now=now)


__all__ = ["ChannelSender", "Delivery", "Outgoing", "compose"]
