"""The one class for errors that a user can cause. The page shows them as a toast; a command prints one line and exits 2."""


class UserError(Exception):
    """An error whose message is one sentence that names the cause and the cure."""
