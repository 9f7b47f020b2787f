"""`samba.functional`: torch's functions under SambaFlow's names.

torch functions accept SambaTensors themselves, so most names are torch's own.
"""

import torch
from torch.nn import functional as F

from sambaflow.samba.functional.arithmetic import abs, add, div, log, mul, sub
from sambaflow.samba.functional.tensorarithmetic import addmm, bmm, cumsum, matmul, triu_fill

argmax, bitwise_not, cat = torch.argmax, torch.bitwise_not, torch.cat
exp, sqrt, sum, mean, max, stack = (
    torch.exp,
    torch.sqrt,
    torch.sum,
    torch.mean,
    torch.max,
    torch.stack,
)
cross_entropy, linear, softmax, relu, gelu = F.cross_entropy, F.linear, F.softmax, F.relu, F.gelu

__all__ = [
    "abs", "add", "addmm", "argmax", "bitwise_not", "bmm", "cat", "cross_entropy", "cumsum", "div",
    "exp", "gelu", "linear", "log", "matmul", "max", "mean", "mul", "relu", "softmax", "sqrt",
    "stack", "sub", "sum", "triu_fill",
]  # fmt: skip
