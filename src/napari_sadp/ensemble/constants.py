"""Prior probabilities that several steps of the reasoning share."""

from __future__ import annotations

#: Prior probability that the crystal has none of the groups, as a whole.
PRIOR_NONE = 0.05
