"""What is refused only while a command runs, because looking at all of it beforehand would take as long."""


class UnusableRow(ValueError):
    """A row of a user's data that cannot be used. Its text is one sentence that names its place and the fix."""
