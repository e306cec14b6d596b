"""The base of the errors that users see."""

from __future__ import annotations


class UserError(RuntimeError):
    """The user can put this right. The text is one line, which the tools print without a traceback.

    It names the argument or file, the value, what was expected and the way out.
    """
