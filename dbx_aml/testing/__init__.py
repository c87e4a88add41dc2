"""The test kit: fixtures for tests of jobs and notebooks, on a laptop and without an account.

    plugin          the pytest plugin `dbx_aml`: its fixtures and options
    spark_session   the session of the fixture `spark`
    mlflow_store    the store of the fixture `mlflow_store`
    models          log and register the model of a test
    scored_rows     score rows through temporary tables
    notebooks       run a notebook and read its variables
    asserts         chispa's asserts on data frames
    starter         copy `example_tests`, from which a user starts

A test asks for a fixture by name, and imports the asserts:

    from dbx_aml.testing.asserts import assert_df_equality
"""
