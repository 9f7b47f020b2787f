"""Functions and methods that do something below every dispatch mode, or read a value where the same
can be said without: while a model is captured, functions of ours stand in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.modules.adaptive import _ASMoutput
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import _disable_current_modes

from batucada.capture.places import frames_here, user_line
from batucada.errors import CaptureError

Values = Callable[[torch.Tensor], torch.Tensor | None]
"""What a tensor without data holds, None where that depends on an input."""


@contextmanager
def recordable_methods(values: Values) -> Iterator[None]:
    def tolist(self: torch.Tensor) -> Any:
        return _to_list(self, values)

    def get_item(self: torch.Tensor, index: Any) -> torch.Tensor:
        return _get_item(*_looked_up(self, index, values))

    def numpy(self: torch.Tensor, **options: Any) -> Any:
        return _to_numpy(self, values, **options)

    replaced: list[tuple[Any, str, Any]] = [
        (torch, "tensor", _tensor),
        (torch, "as_tensor", _as_tensor),
        (torch, "compile", _as_written),
        (torch.SymFloat, "__format__", _written),
        (torch.SymInt, "__format__", _written),
        (torch.SymFloat, "__int__", _whole),
        (torch, "stft", _with_window(torch.stft)),
        (torch, "istft", _with_window(torch.istft)),
        (torch.Tensor, "new_tensor", _new_tensor),
        (torch.Tensor, "tolist", tolist),
        (torch.Tensor, "numpy", numpy),
        (torch.Tensor, "__getitem__", get_item),
        (torch.Tensor, "__setitem__", _set_item),
        (_BatchNorm, "forward", _batch_norm),
        (nn.AdaptiveLogSoftmaxWithLoss, "forward", _adaptive_log_softmax),
    ]
    before = [(place, name, vars(place).get(name)) for place, name, _ in replaced]
    for place, name, function in replaced:
        setattr(place, name, function)
    try:
        yield
    finally:
        for place, name, function in before:
            if function is None:  # an inherited method is found again
                delattr(place, name)
            else:
                setattr(place, name, function)


_torch_tensor, _torch_as_tensor = torch.tensor, torch.as_tensor


def _tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
    """Beside a tensor without data it would have none, and these numbers are known."""
    if isinstance(data, torch.SymFloat | torch.SymInt):
        return torch.full((), data, **options)  # type: ignore[arg-type]
    return _torch_tensor(data, device=_with_data(device), **options)


def _as_tensor(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
    beside = device if isinstance(data, torch.Tensor) else _with_data(device)
    return _torch_as_tensor(data, dtype=dtype, device=beside)


def _new_tensor(
    self: torch.Tensor, data: Any, *, dtype: Any = None, device: Any = None, **options: Any
) -> torch.Tensor:
    return _torch_tensor(data, dtype=dtype or self.dtype, device=_with_data(device), **options)


def _with_data(device: Any) -> Any:
    return None if device is not None and torch.device(device).type == "meta" else device


def _written(number: Any, _: str) -> str:
    """A number that is not known in a message."""
    return str(number)


def _whole(number: Any) -> int:
    return number.node.int_()


def _as_written(model: Any = None, **_: Any) -> Any:
    """In place of torch.compile."""
    return _as_written if model is None else model


def _with_window(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """PyTorch wants the window where the signal is, whether it has data or not."""

    def short_time_transform(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        def moved(value: Any) -> Any:
            return value.to(x.device) if isinstance(value, torch.Tensor) else value

        return function(x, *map(moved, args), **{k: moved(v) for k, v in kwargs.items()})

    return short_time_transform


def _to_list(x: torch.Tensor, values: Values) -> Any:
    with _disable_current_modes():
        known = x if x.device.type != "meta" else values(x)
        if known is not None:
            return torch._C.TensorBase.tolist(known)
    raise CaptureError(
        f"{user_line(frames_here())}: the program reads a tensor's values (.tolist()); a compiled"
        " graph is static. Use torch.where, or make the list on the host"
    )


def _to_numpy(x: torch.Tensor, values: Values, **options: Any) -> Any:
    with _disable_current_modes():
        known = x if x.device.type != "meta" else values(x)
        if known is not None:
            return torch._C.TensorBase.numpy(known, **options)
    raise CaptureError(
        f"{user_line(frames_here())}: the program reads a tensor's values (.numpy()); put what it"
        " does with them into a torch.library.custom_op with register_fake, which PyTorch then runs"
    )


def _looked_up(x: torch.Tensor, index: Any, values: Values) -> tuple[torch.Tensor, Any]:
    """x and an index in which the places that depend on an input, which PyTorch would read, are
    looked up already.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    for at, part in enumerate(parts):
        if not isinstance(part, torch.Tensor) or not _is_place(part):
            continue
        before = parts[:at]
        if not all(isinstance(other, int | slice) for other in before):
            continue
        with _disable_current_modes():
            known = values(part) is not None
        if not known:
            places = [*[None] * at, part.reshape(1)]
            x, parts[at] = torch.ops.aten.index.Tensor(x, places), 0
    return x, (tuple(parts) if isinstance(index, tuple) else parts[0])


def _is_place(index: torch.Tensor) -> bool:
    if is_functorch_wrapped_tensor(index):
        return False  # vmap's, which it indexes with itself
    is_number = not index.dim() and not index.is_floating_point() and index.dtype != torch.bool
    return is_number and index.device.type == "meta"


def _get_item(x: torch.Tensor, index: Any) -> torch.Tensor:
    return torch._C.TensorBase.__getitem__(x, _as_index(index))


def _set_item(x: torch.Tensor, index: Any, value: Any) -> None:
    torch._C.TensorBase.__setitem__(x, _as_index(index), value)


def _as_index(index: Any) -> Any:
    """Lists of numbers as tensors that keep their data: PyTorch would make them where x is."""
    if isinstance(index, tuple):
        return tuple(_as_index(part) for part in index)
    if isinstance(index, np.ndarray) or (isinstance(index, list) and _is_numbers(index)):
        return torch.tensor(index)
    return index


def _is_numbers(values: list[Any]) -> bool:
    return bool(values) and all(
        _is_numbers(value) if isinstance(value, list) else isinstance(value, int)
        for value in values
    )


_torch_batch_norm = _BatchNorm.forward


def _batch_norm(self: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    """Without a momentum the statistics are means over all batches so far: their number is a
    buffer, and a run-time value.
    """
    mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
    if self.momentum is not None or not self.training or mean is None or var is None:
        return _torch_batch_norm(self, x)
    assert count is not None
    self._check_input_dim(x)
    own_mean, own_var = mean.detach().clone(), var.detach().clone()
    out = nn.functional.batch_norm(
        x, own_mean, own_var, self.weight, self.bias, True, momentum=1.0, eps=self.eps
    )
    with torch.no_grad():
        count.add_(1)
        share = 1.0 / count.to(mean.dtype)
        for running, own in ((mean, own_mean), (var, own_var)):
            running.copy_((1 - share) * running + share * own)
    return out


def _adaptive_log_softmax(
    self: nn.AdaptiveLogSoftmaxWithLoss, x: torch.Tensor, target: torch.Tensor
) -> _ASMoutput:
    """PyTorch computes the clusters that the targets are in, which only a run knows: here all are
    computed, and the targets' picked.
    """
    logarithms = self.log_prob(x if target.dim() else x.unsqueeze(0))
    output = logarithms.gather(1, target.reshape(-1, 1)).reshape(target.shape)
    return _ASMoutput(output, (-output).mean())
