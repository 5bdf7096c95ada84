"""Errors that are the user's to mend."""


class UserError(ValueError):
    """A bad input, or several found together. Each message is one line that names the value and the remedy."""

    def __str__(self) -> str:
        return "; ".join(self.args)
