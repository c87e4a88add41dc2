"""A scoring job: a small model, a table of five rows, and what the job writes for them."""

import pandas as pd

FLIGHTS = pd.DataFrame(
    {"flight": [1, 2, 3, 4, 5], "distance": [80.0, 160.0, 240.0, 320.0, None]},
)


def flight_minutes(flights):
    """Predict with a rule instead of a trained model: 8 miles a minute."""
    if flights["distance"].isna().any():
        raise ValueError("distance is missing")
    return flights["distance"] / 8


def test_each_row_gets_the_prediction_of_its_own_distance(registered_model, score):
    flights = FLIGHTS.dropna()
    model_uri = registered_model(flight_minutes, "minutes", flights[["distance"]])

    scored = score(model_uri, flights)

    predictions = {row.flight: row.prediction for row in scored.output.collect()}
    assert predictions == {1: 10.0, 2: 20.0, 3: 30.0, 4: 40.0}
    assert scored.quarantine.count() == 0


def test_a_row_that_the_model_refuses_is_quarantined_with_the_reason(registered_model, score):
    example = FLIGHTS.dropna()[["distance"]]
    model_uri = registered_model(flight_minutes, "minutes", example)

    scored = score(model_uri, FLIGHTS, max_quarantined_rows=1)

    (quarantined,) = scored.quarantine.collect()
    assert quarantined.flight == 5
    assert "distance" in str(quarantined._quarantine)
    assert scored.output.count() == 4
