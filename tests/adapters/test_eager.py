"""The model that faster steps are timed against computes what ours does."""

from __future__ import annotations

import pytest
import torch

from tests.models import FAMILIES, NAMES, awaken, clips, model
from tests.reference import aim_eager


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_the_eager_reference_is_the_same_function(family: str, strategy: str) -> None:
    ours = model(family, strategy).double().eval()
    awaken(ours)
    x = clips().double()
    torch.testing.assert_close(aim_eager.logits(ours, x), ours(x), atol=1e-10, rtol=1e-10)
    found = []
    for forward in (ours, lambda x: aim_eager.logits(ours, x)):
        ours.zero_grad()
        forward(x).square().sum().backward()
        found.append({name: p.grad.clone() for name, p in ours.trained()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-8, rtol=1e-8)
