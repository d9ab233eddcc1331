"""What both chunk forms must do besides what every kernel must."""

import pytest
import torch

from sleep_lightning.testing import KernelTestCase
from sleep_lightning.testing.rule_calls import make_inputs, relative_error, run_rule


class ChunkedTestCase(KernelTestCase):
    backend = "chunked"

    def test_float64_equals_the_definition_to_rounding(self) -> None:
        inputs = make_inputs(2, 100, 2, 16, 8, dtype=torch.float64)
        expected, actual = (run_rule(backend, inputs, rule=self.rule) for backend in ("reference", "chunked"))
        for name in expected:
            assert relative_error(actual[name], expected[name]) < 1e-13, name

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_a_log_decay_of_minus_infinity_in_other_dtypes(self, dtype: torch.dtype) -> None:
        inputs = make_inputs(2, 40, 2, 8, 8, dtype=dtype)
        inputs["g"][:, (0, 17, 18)] = -torch.inf
        exact = {n: x.double() for n, x in inputs.items()}
        inputs["g"] = inputs["g"].to(dtype)
        exact["g"] = inputs["g"].double()
        expected, actual = run_rule("reference", exact, rule=self.rule), run_rule("chunked", inputs, rule=self.rule)
        for name in expected:
            assert relative_error(actual[name], expected[name]) < (1e-2 if dtype == torch.float16 else 1e-12), name

    def test_gradcheck(self) -> None:
        inputs = make_inputs(1, 7, 1, 3, 2, dtype=torch.float64)
        leaves = tuple(x.requires_grad_() for x in inputs.values())
        assert torch.autograd.gradcheck(lambda *xs: self.rule(*xs, backend="chunked"), leaves)
