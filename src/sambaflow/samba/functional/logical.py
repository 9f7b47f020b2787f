"""Functions of truth values and bits."""

import torch

bitwise_not, logical_or, logical_and = torch.bitwise_not, torch.logical_or, torch.logical_and
