"""What can go wrong, as a tree.

    WhyDriftError                 exit code 3
    ├── ConfigError               exit code 2   the YAML file or a command-line argument
    ├── DataError                                the inference log or the labels
    │   ├── NoDataError                          nothing to read where the config points
    │   └── SchemaError                          the log cannot be read as records at all
    ├── ModelError                               the model cannot be found, loaded or explained
    ├── BaselineError                            no baseline, or one of another model
    ├── StoreError                               MLflow or the store cannot be reached: worth a retry
    └── EngineError                              the cluster did not do its work: worth a retry

Exit codes are the command line's contract: 0 pass, 1 breach, 2 usage or configuration, 3 could not
evaluate. A breach is a result and no error, so nothing here carries 1. The class
name, which the command line prints first, tells a scheduler what a retry can mend.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_PASS = 0
EXIT_BREACH = 1
EXIT_USAGE = 2
EXIT_NOT_EVALUATED = 3


def without_password(uri: str) -> str:
    """A URI that may be shown in a message.

    >>> without_password("https://me:secret@mlflow.example:5000")
    'https://mlflow.example:5000'
    """
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2] if separator else uri


class WhyDriftError(Exception):
    """A failure that a person can act on: the message says what, where and what to do."""

    exit_code: ClassVar[int] = EXIT_NOT_EVALUATED


class ConfigError(WhyDriftError):
    """The configuration or the command line is wrong."""

    exit_code: ClassVar[int] = EXIT_USAGE


class DataError(WhyDriftError):
    """The inference log or the label log is not what the config says."""


class NoDataError(DataError):
    """There is nothing to read where the config points."""


class SchemaError(DataError):
    """The log cannot be read as records: a column that every record needs is absent."""


class ModelError(WhyDriftError):
    """The model or alias does not exist, or no explainer fits it."""


class BaselineError(WhyDriftError):
    """The model version has no baseline, or its files are not the ones that were approved."""


class StoreError(WhyDriftError):
    """MLflow or the summary store did not answer. Retrying may mend it."""


class EngineError(WhyDriftError):
    """The cluster that rows are explained on could not be had, or gave up. Retrying may mend it."""
