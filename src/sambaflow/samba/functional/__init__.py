"""`samba.functional`: torch's functions under SambaFlow's names.

torch functions accept SambaTensors themselves, so most names are torch's own.
"""

import torch
from torch.nn import functional as F

from sambaflow.samba.functional.arithmetic import abs, add, div, log, mul, sub
from sambaflow.samba.functional.logical import bitwise_not, logical_and, logical_or
from sambaflow.samba.functional.loss import cross_entropy, mse_loss
from sambaflow.samba.functional.reduce import argmax, max, mean, sum
from sambaflow.samba.functional.tensorarithmetic import addmm, bmm, cumsum, matmul, triu_fill
from sambaflow.samba.functional.tensorops import cat, stack

exp, sqrt = torch.exp, torch.sqrt
linear, softmax, relu, gelu = F.linear, F.softmax, F.relu, F.gelu

__all__ = [
    "abs", "add", "addmm", "argmax", "bitwise_not", "bmm", "cat", "cross_entropy", "cumsum", "div",
    "exp", "gelu", "linear", "log", "logical_and", "logical_or", "matmul", "max", "mean",
    "mse_loss", "mul", "relu", "softmax", "sqrt", "stack", "sub", "sum", "triu_fill",
]  # fmt: skip
