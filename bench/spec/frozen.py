"""The base of all specifications: immutable, hashable by content."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Immutable base of all specifications: hashable, strict about names (an unknown field is an error)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> str:
        """The values as JSON with sorted keys and no spaces: equal values, equal text."""
        values = self.model_dump(mode="json", exclude=self._left_out())
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    def _left_out(self) -> set[str]:
        """Fields that came later and are not set: the texts of before stay what they were."""
        return set()

    def __hash__(self) -> int:  # of the text, as a mapping among the values has no hash
        return hash(self.canonical())
