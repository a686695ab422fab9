"""The limit of patch operations, and the refusal of the simulator."""

from __future__ import annotations

REFUSAL = {"code": "OperationNotAllowed", "details": [{"code": "TooManyRequests", "target": "HighCostGet"}]}
PATCH_LIMIT = "VMGuestPatchOperationSubscriptionMaximum"
