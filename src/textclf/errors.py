"""What can go wrong, in the words a user needs: a message, a hint that mends it, an exit code."""

from __future__ import annotations

from textclf.redaction import redact


class TextclfError(Exception):
    """A failure that the user can understand and mend.

    message: what was found and where (file and row where there is one).
    hint: what to do about it, or None.
    Secrets in either are blotted out: what other packages say may hold an address with a password, or a token.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        message = redact(message)
        super().__init__(message)
        self.message = message
        self.hint = redact(hint) if hint else hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(TextclfError, ValueError):
    """The command or call itself is wrong: an option, a name, a combination."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration holds an unknown key or a value out of range."""


class MissingExtraError(UsageError, ImportError):
    """A feature needs a package that only an extra installs."""


class DataError(TextclfError, ValueError):
    """The data set cannot be read or cannot be learnt from."""

    exit_code = 3


class ModelError(TextclfError):
    """A model, artifact or checkpoint is missing, incomplete or does not fit."""

    exit_code = 4


class HubError(TextclfError, OSError):
    """The network or the Hub did not give what was asked."""

    exit_code = 5


class ResourceError(TextclfError, OSError):
    """Disk, memory or device ran out, or a file cannot be written."""

    exit_code = 6


class DivergedError(TextclfError, ArithmeticError):
    """Training met a loss or gradient that is not a finite number."""

    exit_code = 7


class RefusedError(TextclfError):
    """Refused for safety: what was asked would run or open what is not trusted."""

    exit_code = 8


class BusyError(TextclfError):
    """Another process works in the same folder."""

    exit_code = 9


class GateError(TextclfError):
    """A gate that the user set, such as `--fail-under accuracy=0.9`, was not passed."""

    exit_code = 10


class InterruptedRun(TextclfError):  # not an error: the user asked for it
    """A run was stopped by a signal; in the middle of training, after it wrote a checkpoint."""

    def __init__(self, message: str, *, hint: str | None = None, signal_number: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number
