"""Errors that the user can mend."""


class UserError(ValueError):
    """Reports a bad input, or several found together. Each message is one line that names the value and the remedy."""

    def __str__(self) -> str:
        return "; ".join(self.args)
