"""Test suites to inherit: what the package relies on in a task, a kernel, a memory rule and a model.

Subclass a suite in a test file of your own, set the attributes its docstring names, and pytest checks every property::

    from sleep_lightning.testing import TaskTestCase

    class TestMyTask(TaskTestCase):
        config = MyTaskConfig()

They need pytest and hypothesis: ``pip install 'sleep-lightning[testing]'``. Nothing else in the package imports either.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{suite}" for suite in ("kernel", "memory_rule", "model", "task")))

from sleep_lightning.testing.kernel import FlaTestCase, KernelTestCase  # noqa: E402
from sleep_lightning.testing.memory_rule import MemoryRuleTestCase  # noqa: E402
from sleep_lightning.testing.model import WindowModelTestCase  # noqa: E402
from sleep_lightning.testing.task import TaskTestCase  # noqa: E402

__all__ = ["FlaTestCase", "KernelTestCase", "MemoryRuleTestCase", "TaskTestCase", "WindowModelTestCase"]
