"""The table of kinds that `app` hands over, for tests of the configuration."""

from __future__ import annotations

from gateway.app.kinds import kinds

__all__ = ["kinds"]
