"""``doctor``: checks the installation and says what to do.

No module here imports more than the standard library when it is imported itself: a package that is missing or broken
must end as a row of the table.
"""
