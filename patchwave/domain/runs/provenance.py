"""Who wrote the rules that a run follows, which rules they are, and what of them an approver has to see."""

import hashlib
import json
from typing import NamedTuple

from patchwave.domain.core.documents import Json
from patchwave.domain.policy.hooks import Script
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.run import PolicyOrigin

MAX_SHOWN_SCRIPT = 500
"""Characters of a script that a line of the audit log shows; the digest is of all of it."""
SHORT_DIGEST = 12


class WrittenPolicy(NamedTuple):
    """A policy, and who wrote it."""

    policy: Policy
    origin: PolicyOrigin

    def changed(self, policy: Policy) -> "WrittenPolicy":
        """The same author's policy after a request has changed it, which one before may have done already."""
        changed = self.origin.changed_digest if policy == self.policy else policy_digest(policy)
        return WrittenPolicy(policy, self.origin.model_copy(update={"changed_digest": changed}))


def policy_digest(policy: Policy) -> str:
    """SHA-256 of the policy with all its defaults, in hexadecimal."""
    text = json.dumps(policy.to_wire(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def written(policy: Policy, *, author: str, author_id: str, version: int = 0, digest: str = "") -> WrittenPolicy:
    """The policy as it was written.

    ``version`` is that of a stored policy, 0 for one that came in a request; ``digest`` is what was stored with it.
    """
    origin = PolicyOrigin(author=author, author_id=author_id, version=version, digest=digest or policy_digest(policy))
    return WrittenPolicy(policy, origin)


def rules_in_short(policy: Policy, origin: PolicyOrigin | None = None) -> Json:
    """What an audit line and an approver have to see of the rules: ``digest``, ``scope``, ``scripts``, their author.

    ``scripts`` has the beginning of each, by hook and system, such as ``before.linux``.
    """
    told: Json = {"scope": policy.scope.describe(), "scripts": _scripts(policy)}
    if origin is None:
        return {"digest": policy_digest(policy)} | told
    source = "a request" if origin.is_inline else f"version {origin.version}"
    who = {"author": origin.author, "authorId": origin.author_id, "source": source}
    return {"digest": origin.followed_digest} | told | who


def spoken_scripts(policy: Policy) -> str:
    """The scripts in a few words, such as ``before.linux 8a1f…``; ``none`` without one."""
    return ", ".join(f"{name} {_digest(text)}" for name, text in _texts(policy).items()) or "none"


def _scripts(policy: Policy) -> dict[str, str]:
    return {
        name: text if len(text) <= MAX_SHOWN_SCRIPT else f"{text[:MAX_SHOWN_SCRIPT]}… [sha256 {_digest(text)}]"
        for name, text in _texts(policy).items()
    }


def _texts(policy: Policy) -> dict[str, str]:
    hooks: dict[str, Script | None] = {"before": policy.hooks.before, "after": policy.hooks.after}
    return {
        f"{when}.{system.value.lower()}": text
        for when, script in hooks.items()
        if script is not None
        for system in OsType
        if (text := script.text_for(system)) is not None
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:SHORT_DIGEST]
