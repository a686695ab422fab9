"""Templates of mails. An undefined name in a template is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from patchwave.domain.notifications.messages import Message

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def render_html(template: str, message: Message) -> str:
    """Render an HTML template; every text of the message is escaped."""
    return _environment(escaped=True).get_template(template).render(message=message)


def render_text(template: str, message: Message) -> str:
    """Render a plain text template. Nothing needs escaping: every text of the message is on one line."""
    return _environment(escaped=False).get_template(template).render(message=message)


@cache
def _environment(*, escaped: bool) -> Environment:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
