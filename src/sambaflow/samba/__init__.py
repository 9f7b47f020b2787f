"""The frontend: `from sambaflow import samba`."""

from sambaflow.absent import absent
from sambaflow.samba import (
    directives,
    env,
    experiment_logger,
    functional,
    graph,
    lazy_param,
    materialize,
    nn,
    optim,
    profiler,
    random,
    sambaloader,
    schema,
    sn_private,
    test,
)
from sambaflow.samba.conversion import (
    from_named_dict,
    from_torch,
    from_torch_,
    from_torch_model,
    from_torch_model_,
    is_internal,
    patched_torch,
)
from sambaflow.samba.functional import (
    abs,
    add,
    addmm,
    argmax,
    bitwise_not,
    bmm,
    cat,
    cross_entropy,
    cumsum,
    div,
    exp,
    log,
    matmul,
    mean,
    mul,
    sqrt,
    stack,
    sub,
    sum,
    triu_fill,
)
from sambaflow.samba.hosttensor import extend_torch_tensor
from sambaflow.samba.random import (
    arange,
    empty,
    full,
    normal,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    set_seed,
    tensor,
    zeros,
    zeros_like,
)
from sambaflow.samba.sambatensor import SambaTensor, from_torch_tensor, to_torch
from sambaflow.samba.session import session

from sambaflow.samba import utils  # isort: skip  - needs the session
from sambaflow.samba import argconf  # isort: skip  - needs the flags

groupby = absent(
    "samba.groupby", "its semantics are not public; use torch.bincount and torch.argsort"
)

extend_torch_tensor()

__all__ = [
    "SambaTensor", "abs", "add", "addmm", "arange", "argconf", "argmax", "bitwise_not", "bmm",
    "cat", "cross_entropy", "cumsum", "directives", "div", "empty", "env", "exp",
    "experiment_logger", "from_named_dict", "from_torch", "from_torch_", "from_torch_model",
    "from_torch_model_", "from_torch_tensor", "full", "functional", "graph", "groupby",
    "is_internal", "lazy_param", "log", "materialize", "matmul", "mean", "mul", "nn", "normal",
    "ones", "ones_like", "optim", "patched_torch", "profiler", "rand", "rand_like", "randint",
    "randn", "randn_like", "random", "sambaloader", "schema", "session", "set_seed", "sn_private",
    "sqrt", "stack", "sub", "sum", "tensor", "test", "to_torch", "triu_fill", "utils", "zeros",
    "zeros_like",
]  # fmt: skip
