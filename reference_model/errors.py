"""The two ways a run can go wrong that a person should read about without a traceback."""


class ConfigError(ValueError):
    """The run was asked for wrongly: unknown key, value out of range, missing file. Exit code 2."""


class TrainingError(RuntimeError):
    """The run was asked for rightly and broke while training. Exit code 1."""
