"""Values that are longer than the service accepts."""

from hypothesis import given
from hypothesis import strategies as st

from dbx_aml.tracking.azureml.run_overflow import OverflowPart


@given(st.text(max_size=2000), st.sampled_from([500, 1000]))
def test_a_long_value_is_shortened_and_found_again(value: str, max_length: int) -> None:
    part = OverflowPart()

    short_value = part.shorten(value, max_length)

    assert len(short_value) <= max_length
    assert part.full_value(short_value) == value
    assert bool(part) is (len(value) > max_length)


def test_a_value_of_another_client_stays_unchanged() -> None:
    part = OverflowPart()
    part.shorten("x" * 1001, 1000)

    assert part.full_value("later") == "later"
    assert part.full_value("… [dbx_aml 000000000000]") == "… [dbx_aml 000000000000]"
