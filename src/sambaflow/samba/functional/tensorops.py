"""Functions that put tensors together."""

import torch

cat, stack = torch.cat, torch.stack
