"""The init script with a link in it never holds a secret."""

import pytest

from dbx_aml import Link
from dbx_aml._common.errors import ArgumentError
from dbx_aml.cluster.init_script import render

# Invented texts in the shapes of real secrets.
SECRETS = (
    "dapi" + "0123456789abcdef" * 2,
    "Xyz8Q~" + "abcdefghijklmnopqrstuvwxyz012345",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.x",
    "{{secrets/ml/aml-secret}}",
    "DefaultEndpointsProtocol=https;AccountKey=abc",
)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ArgumentError, match="rendered init script must hold no secret") as caught:
        render(Link(experiment=f"/Users/{secret}"))
    assert secret not in str(caught.value)


def test_a_password_in_a_uri_is_refused() -> None:
    with pytest.raises(ArgumentError, match="must hold no secret"):
        render(Link(databricks_tracking_uri="https://ana:s3cret@mlflow.contoso.com"))


def test_a_secret_of_this_machines_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(databricks_tracking_uri="https://mlflow.contoso.com/correct-horse")
    assert "correct-horse" in render(link)
    monkeypatch.setenv("TEAM_CLIENT_SECRET", "correct-horse")
    with pytest.raises(ArgumentError, match="must hold no secret"):
        render(link)
