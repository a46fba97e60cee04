"""Device, precision and layout, from what the user asked for."""

from __future__ import annotations

import pytest
import torch

from priorscope.device import inference_layout, resolve_device, resolve_dtype
from priorscope.errors import InputError


def test_layout_follows_the_device():
    assert inference_layout(torch.device("cpu")) is torch.contiguous_format
    assert inference_layout(torch.device("cuda:1")) is torch.channels_last


def test_names_of_devices_and_precisions():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_dtype("auto", torch.device("cpu")) is torch.float32
    assert resolve_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    with pytest.raises(InputError, match="device 'zebra'"):
        resolve_device("zebra")
    with pytest.raises(InputError, match="precision 'int8'"):
        resolve_dtype("int8", torch.device("cpu"))
