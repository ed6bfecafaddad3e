from __future__ import annotations

from tests.patience import patience

__all__ = ["patience"]
