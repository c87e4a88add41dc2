"""Several models in one Python function of Spark: each row reaches Python once.

This file travels with the model, see `guard`, and imports nothing of dbx-aml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .guard import QUARANTINED, REASON, Guard

# Start of the challenger's fields in the result.
CHALLENGER_FIELD = "challenger_"


class ChallengerGuard:
    """Two guarded models that predict the same rows; only the champion sends rows to quarantine.

    Args:
        champion: Model whose predictions are the output's.
        challenger: Model that is compared with it. Its fields start with `CHALLENGER_FIELD`.
        positions: Positions of the columns of each model.
    """

    def __init__(
        self, champion: Guard, challenger: Guard, positions: Sequence[Sequence[int]]
    ) -> None:
        self._guards = champion, challenger
        self._positions = positions

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the champion's result, and beside it the challenger's.

        Shape: n rows -> n rows x (fields of both models + 3), in the same order.
        """
        # A copy each: a model may change the rows that it gets.
        champion, challenger = (
            guard.predict(rows.iloc[:, list(positions)])
            for guard, positions in zip(self._guards, self._positions, strict=True)
        )
        del challenger[QUARANTINED]
        challenger = challenger.rename(columns={REASON: CHALLENGER_FIELD + REASON})
        return pd.concat([champion, challenger], axis=1)
