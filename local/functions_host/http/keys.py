"""Function keys, and the check of requests against them."""

import hmac
import secrets
from dataclasses import asdict, dataclass

from starlette.requests import Request

from local.functions_host.functions import Function


@dataclass(frozen=True, slots=True)
class Keys:
    """``default`` opens every function, ``eventgrid`` the Event Grid webhook, ``master`` everything."""

    master: str
    default: str
    eventgrid: str

    @classmethod
    def generate(cls) -> "Keys":
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def open_function(self, request: Request, function: Function) -> bool:
        """Whether the request may call an HTTP function, by the function's ``authLevel``."""
        level = str(function.trigger.get("authLevel") or "FUNCTION").upper()
        if level == "ANONYMOUS":
            return True
        return _has_one_of(request, [self.master] if level == "ADMIN" else [self.default, self.master])

    def open_admin(self, request: Request) -> bool:
        return _has_one_of(request, [self.master])

    def open_event_grid(self, request: Request) -> bool:
        return _has_one_of(request, [self.eventgrid, self.master])


def _has_one_of(request: Request, keys: list[str]) -> bool:
    given = request.headers.get("x-functions-key") or request.query_params.get("code") or ""
    # Every key is compared, in constant time.
    return sum(hmac.compare_digest(given.encode(), key.encode()) for key in keys) > 0
