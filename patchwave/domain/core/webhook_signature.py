"""The signature of a webhook call, and the secret of each policy that it is made with.

The app has one secret, which no sender gets. The secret of a policy is derived from it, the policy's name and a number,
so that none has to be stored, a sender can start one policy only, and a higher number takes the secret of one policy
back. A signature covers everything that decides what a call does: time, method, path, delivery and body.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

FIRST_ROTATION = 1
TOLERANCE_SECONDS = 300
"""How far the time stamp of a signature may be from now, in either direction."""
NOT_SIGNED = "the call has no signature"
MALFORMED = "the header of the signature is malformed"
NOT_FRESH = f"the time of the signature is off by more than {TOLERANCE_SECONDS} s"
NO_SECRET_FITS = "the signature fits no secret of the policy"
_DERIVED_FOR = "patchwave webhook"
_SIGNATURE = re.compile(r"t=([0-9]{1,12}),\s*v2=([0-9a-fA-F]{64})")


class SignatureRefused(Exception):
    """A call may not come in by its signature; the text is one of four, and for the trace."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is signed of a call. ``delivery`` is the header's; one in the body is signed with the body."""

    policy: str
    delivery: str
    body: bytes
    method: str = "POST"

    @property
    def path(self) -> str:
        """The path as the API documents it, whatever a proxy puts before it."""
        return f"/api/webhooks/{self.policy}"

    def signed_by(self, secret: str, stamp: str) -> str:
        """The signature at that time stamp, in hexadecimal."""
        head = f"{stamp}\n{self.method}\n{self.path}\n{self.delivery}\n"
        return hmac.new(secret.encode(), head.encode("utf-8", "surrogatepass") + self.body, hashlib.sha256).hexdigest()


def policy_secret(master: str, policy: str, rotation: int = FIRST_ROTATION) -> str:
    """The secret that the senders of one policy sign with: 64 hexadecimal digits, used as text."""
    return hmac.new(master.encode(), f"{_DERIVED_FOR}\n{policy}\n{rotation}".encode(), hashlib.sha256).hexdigest()


def signature_of(call: Call, secret: str, at: float) -> str:
    """The header of a call that is sent at that moment, in seconds since 1970."""
    return f"t={int(at)},v2={call.signed_by(secret, str(int(at)))}"


def verify(header: str, call: Call, secrets: Iterable[str], now: float) -> str:
    """What names the signature, which is right and fresh.

    Raises:
        SignatureRefused: it is not.
    """
    if not header:
        raise SignatureRefused(NOT_SIGNED)
    found = _SIGNATURE.fullmatch(header)
    if found is None:
        raise SignatureRefused(MALFORMED)
    stamp, given = found.groups()
    # All of them are compared, so that the time does not tell which one is near.
    matches = [hmac.compare_digest(call.signed_by(secret, stamp), given.lower()) for secret in secrets]
    if abs(now - int(stamp)) > TOLERANCE_SECONDS:
        raise SignatureRefused(NOT_FRESH)
    if not any(matches):
        raise SignatureRefused(NO_SECRET_FITS)
    return f"{stamp}.{given.lower()}"
