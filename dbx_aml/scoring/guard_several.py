"""Several models in one Python function of Spark: each row reaches Python once.

This file travels with the model, see `guard`, and imports nothing of dbx-aml.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .guard import QUARANTINED, REASON, Limits
from .guard_casts import fields_of_output, placeholder_values

if TYPE_CHECKING:
    from .guard import Guard
    from .guard_process import ProcessGuard

# Start of the challenger's fields in the result.
CHALLENGER_FIELD = "challenger_"
# Field with the version of the model that predicted a row.
MODEL_VERSION = "model_version"


class ChallengerGuard:
    """Two guarded models that predict the same rows; only the champion sends rows to quarantine.

    Args:
        champion: Model whose predictions are the output's.
        challenger: Model that is compared with it. Its fields start with `CHALLENGER_FIELD`.
        positions: Positions of the columns of each model.
    """

    def __init__(
        self,
        champion: Guard | ProcessGuard,
        challenger: Guard | ProcessGuard,
        positions: Sequence[Sequence[int]],
    ) -> None:
        self._guards = champion, challenger
        self._positions = positions
        # Seconds of the champion and of the challenger, for the plan.
        self.seconds = [0.0, 0.0]

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the champion's result, and beside it the challenger's.

        Shape: n rows -> n rows x (fields of both models + 3), in the same order.
        """
        results = []
        for number, guard in enumerate(self._guards):
            start_time = time.perf_counter()
            # A copy each: a model may change the rows that it gets.
            results.append(guard.predict(rows.iloc[:, list(self._positions[number])]))
            self.seconds[number] += time.perf_counter() - start_time
        champion, challenger = results
        del challenger[QUARANTINED]
        challenger = challenger.rename(columns={REASON: CHALLENGER_FIELD + REASON})
        return pd.concat([champion, challenger], axis=1)


class SegmentGuard:
    """Guarded models that predict the rows of their segments: the rows are not moved for it.

    Args:
        load: Returns the guarded model of a position in `models`.
        models: Descriptions of the models: `outputs`, `positions` of the columns, `version`.
        segments: Position of the column of segments, of the model by segment, and of the model
            for every other row.
        limits: When the guard ends its query.
    """

    def __init__(
        self,
        load: Callable[[int], Guard | ProcessGuard],
        models: Sequence[Mapping[str, Any]],
        segments: Mapping[str, Any],
        limits: Limits,
    ) -> None:
        self._load = load
        self._models = models
        self._segments = segments
        self._limits = limits

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the predictions of each row by the model of its segment.

        Shape: n rows -> n rows x (fields + 3), in the same order.
        """
        size = len(rows)
        result = {
            name: placeholder_values(dtype, size)
            for output in self._models[0]["outputs"]
            for name, dtype in fields_of_output(output)
        }
        versions = np.zeros(size, np.int32)
        quarantined = np.zeros(size, np.bool_)
        reasons = np.full(size, "", object)
        by_segment = rows.iloc[:, self._segments["position"]]
        codes, segments = pd.factorize(by_segment, use_na_sentinel=False)
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(segments) + 1))
        for number, segment in enumerate(segments):
            places = order[starts[number] : starts[number + 1]]
            name = None if pd.isna(segment) else str(segment)
            model = self._segments["models"].get(name, self._segments["default"])
            if model is None:
                quarantined[places] = True
                reasons[places] = f"no model for segment {name!r}"
                continue
            columns = list(self._models[model]["positions"])
            part = rows.iloc[places, columns].reset_index(drop=True)
            predicted = self._load(model).predict(part)
            for field, values in result.items():
                values[places] = predicted[field].to_numpy()
            quarantined[places] = predicted[QUARANTINED].to_numpy()
            reasons[places] = predicted[REASON].astype(object).to_numpy()
            versions[places] = self._models[model]["version"] or 0
        self._limits.check(quarantined, reasons)
        own = {QUARANTINED: quarantined, REASON: pd.Categorical(reasons), MODEL_VERSION: versions}
        return pd.DataFrame({**result, **own}, copy=False)
