"""Complex numbers and Fourier transforms.

Inputs and outputs are real here: each case makes complex numbers of its inputs, and gives both
parts of what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.ops.against_eager import Case, Function

Tensor = torch.Tensor
_GENERATOR = torch.Generator().manual_seed(17)
_LENGTHS = (1, 2, 7, 8, 12, 30, 97, 512)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def _parts(z: Tensor) -> Tensor:
    return torch.view_as_real(z.resolve_conj()) if z.is_complex() else z.float()


def _case(name: str, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Case:
    """`function` takes a complex tensor of each shape."""

    def of_parts(*parts: Tensor) -> Tensor:
        numbers = [torch.complex(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
        return _parts(function(*numbers))

    inputs = [_normal(*shape) for shape in shapes for _ in range(2)]
    return Case(name, Function(of_parts), tuple(inputs), rtol=1e-5, atol=1e-5)


def _real(name: str, function: Callable[..., Tensor], *inputs: Tensor) -> Case:
    """`function` takes the real tensors."""
    return Case(name, Function(lambda *x: _parts(function(*x))), inputs, rtol=1e-5, atol=1e-5)


def arithmetic() -> list[Case]:
    two, row = ((3, 4), (3, 4)), ((3, 4), (4,))
    functions: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "alpha": lambda a, b: torch.add(a, b, alpha=2.5),
        "pow": lambda a, b: a**b,
        "vdot": lambda a, b: torch.vdot(a[0], b[1]),
        "dot": lambda a, b: torch.dot(a[0], b[1]),
        "where": lambda a, b: torch.where(a.real > 0, a, b),
        "cat": lambda a, b: torch.cat([a, b]),
        "stack": lambda a, b: torch.stack([a, b], 1),
        "eq": lambda a, b: a * ((a == torch.where(b.real > 0, a, b)) | (a != 0)),
        "mse": lambda a, b: (a - b).abs().square().mean(),
        "lerp": lambda a, b: torch.lerp(a, b, 0.3),
    }
    unary: dict[str, Callable[[Tensor], Tensor]] = {
        "scalars": lambda z: (2 - 3j * z + 1) / (1 + 2j) + (1j - z) * 2,
        "inverse": lambda z: 2j / z + z.reciprocal(),
        "real operand": lambda z: z * z.real / z.imag,
        "abs": torch.abs,
        "angle": torch.angle,
        "sgn": torch.sgn,
        "neg": torch.neg,
        "conj": lambda z: z.conj() * z,
        "exp": torch.exp,
        "log": torch.log,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "sin": torch.sin,
        "cos": torch.cos,
        "sinh": torch.sinh,
        "cosh": torch.cosh,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "square": lambda z: z**2,
        "cube": lambda z: z**-3,
        "third": lambda z: z**0.3,
        "half": lambda z: z**0.5,
        "base": lambda z: 2**z,
        "sum": lambda z: z.sum(1),
        "mean": lambda z: z.mean((0, 1)),
        "cumsum": lambda z: z.cumsum(1),
        "norm": lambda z: torch.linalg.vector_norm(z, dim=1),
        "var": lambda z: z.var(1) + z.std(),
        "finite": lambda z: z * (z.isfinite() & ~z.isnan() & ~z.isinf()) + z.detach().nan_to_num(),
        "polar": lambda z: torch.polar(z.real.abs(), z.imag),
        "parts": lambda z: torch.complex(z.imag, z.real),
        "to real": lambda z: z.real.to(z.dtype),
        "wide": lambda z: z.to(torch.complex128).abs().float(),
        "angles": lambda z: (z * 1j).angle(),
    }
    return [
        *(_case(name, function, *two) for name, function in functions.items()),
        *(_case(f"{name} of a row", functions[name], *row) for name in ("add", "mul", "div")),
        *(_case(name, function, (3, 4)) for name, function in unary.items()),
    ]


def products() -> list[Case]:
    functions: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
        "mm": (torch.mm, ((3, 4), (4, 5))),
        "bmm": (torch.bmm, ((2, 3, 4), (2, 4, 5))),
        "mv": (torch.mv, ((3, 4), (4,))),
        "matmul": (torch.matmul, ((2, 3, 4), (4, 5))),
        "addmm": (
            lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2j),
            ((3, 5), (3, 4), (4, 5)),
        ),
        "linear": (torch.nn.functional.linear, ((3, 4), (5, 4), (5,))),
        "baddbmm": (torch.baddbmm, ((2, 3, 5), (2, 3, 4), (2, 4, 5))),
        "adjoint": (lambda a, b: a.mH @ b, ((4, 3), (4, 5))),
        "real factor": (lambda a, b: a @ b.real.to(a.dtype), ((3, 4), (4, 5))),
        "einsum": (lambda a, b: torch.einsum("bix,iox->box", a, b), ((2, 3, 5), (3, 4, 5))),
    }
    return [_case(name, function, *shapes) for name, (function, shapes) in functions.items()]


def views() -> list[Case]:
    mask = torch.tensor([True, False, True, False])

    def written(z: Tensor) -> Tensor:
        out = torch.zeros(2, 5, 6, dtype=torch.cfloat)
        out[:, 1:4, :4] = z
        out[:, 4, ::2] = z[:, 0, :3]
        out.imag[:, 0] += 1.5
        out[0].real.mul_(2)
        torch.view_as_real(out)[1, 0, :, 0] = 3
        return out * out

    def through_real(z: Tensor) -> Tensor:
        x = torch.stack([z.real, z.imag], -1)
        torch.view_as_complex(x)[..., 1] *= 2j
        return x

    def later(z: Tensor) -> Tensor:
        out = z.clone()
        turned, mirrored, part = out.transpose(0, 1), out.conj(), out.real
        out *= 2 + 1j
        out += 1
        return turned[0] * mirrored[:, 0] + part[:, 0]

    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "reshape": lambda z: z.reshape(6, 4),
        "permute": lambda z: z.permute(2, 0, 1) * 1j,
        "expand": lambda z: z[:, :1].expand(2, 3, 4) * 2j,
        "flip": lambda z: z.flip(0, 2),
        "roll": lambda z: z.roll((1, 2), (0, 2)),
        "shift": lambda z: torch.fft.fftshift(z),
        "select": lambda z: z[1, :, -1],
        "slice": lambda z: z[:, ::2, 1:],
        "mask": lambda z: z * mask,
        "unsqueeze": lambda z: z[None, ..., None].squeeze(0),
        "pick": lambda z: z[:, [2, 0, 2]],
        "chunks": lambda z: torch.cat(z.chunk(2, -1)[::-1], -1),
        "unbind": lambda z: z.unbind(1)[2],
        "pad": lambda z: torch.nn.functional.pad(z, (1, 2, 0, 1)),
        "unfold": lambda z: z.unfold(2, 2, 1),
        "masked": lambda z: z.masked_fill(mask, 1 - 2j),
        "repeat": lambda z: z.repeat(2, 1, 1),
        "diagonal": lambda z: z.diagonal(0, 1, 2),
        "tril": lambda z: z.tril(),
        "strided": lambda z: z.as_strided((2, 3), (12, 1), 5),
        "gather": lambda z: z.gather(2, torch.tensor([[[1, 3]]])),
        "fill": lambda z: z.clone().fill_(2j) + torch.full_like(z, 3),
        "ones": lambda z: (
            z + torch.ones_like(z) + torch.ones(4, dtype=z.dtype) + torch.eye(4, dtype=z.dtype)[:3]
        ),
        "put": lambda z: z.index_put((torch.tensor([0, 1]),), z[0] * 2j),
        "written": written,
        "through real": through_real,
        "later": later,
        "as floats": lambda z: (
            z.detach().clone().view(torch.float32).detach().view(torch.complex64) * z
        ),
    }
    return [_case(name, function, (2, 3, 4)) for name, function in functions.items()]


def transforms() -> list[Case]:
    fft = torch.fft
    cases = []
    for n in _LENGTHS:  # the gradient of rfft is an inverse transform of complex numbers
        cases += [_real(f"rfft {n}", lambda x: fft.rfft(x, norm="ortho"), _normal(3, n))]
    for n in (1, 2, 7, 30, 512):
        cases += [_case(f"irfft {n}", lambda z, n=n: fft.irfft(z, n=n), (3, n // 2 + 1))]
    cases += [
        _real("fft", fft.fft, _normal(3, 12)),
        _case("ifft", fft.ifft, (3, 30)),
        _real("rfft2", fft.rfft2, _normal(2, 12, 30)),
        _real("fftn", fft.fftn, _normal(3, 4, 5)),
        _case("fft2", lambda z: fft.fft2(z, norm="forward"), (2, 8, 9)),
        _case("ifft2", lambda z: fft.ifft2(z, dim=(0, 1)), (8, 9, 2)),
        _case("irfft2", lambda z: fft.irfft2(z, s=(6, 8)), (2, 6, 5)),
        _case("hfft", fft.hfft, (2, 7)),
        _real("ihfft", fft.ihfft, _normal(2, 7)),
        _real("ihfftn", fft.ihfftn, _normal(3, 4)),
        _real("rfft of a part", lambda x: fft.rfft(x, n=9, dim=0), _normal(8, 2)),
        _case("inverse along rows", lambda z: fft.irfft(z, dim=0), (101, 3)),
        _case("prime", lambda z: fft.irfft(z, n=1031), (2, 516)),
        _real("long", fft.rfft, _normal(1, 6144) / 30),
        _real("freq", lambda x: x * fft.rfftfreq(30), _normal(2, 16)),
        Case(
            "f64", Function(lambda x: _parts(fft.fft(x))), (_normal(2, 60).double(),), 1e-10, 1e-10
        ),
    ]
    return cases


class Inverse(torch.nn.Module):
    """With a window whose values are not those of the compilation, maybe."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.stft(x, 16, 4, window=self.window, return_complex=True)
        return torch.istft(z * z.abs().sigmoid(), 16, 4, window=self.window, length=x.shape[1])


def spectrograms() -> list[Case]:
    window = torch.hann_window(16)

    def stft(x: Tensor, **options: Any) -> Tensor:
        return torch.stft(x, 16, 4, window=window, return_complex=True, **options)

    return [
        _real("stft", stft, _normal(2, 64)),
        _real(
            "power", lambda x: stft(x, center=False, normalized=True).abs().square(), _normal(50)
        ),
        Case("istft", Inverse(), (_normal(2, 64),), rtol=1e-5, atol=1e-5),
    ]


def of_pytorch() -> list[Case]:
    """Operators that PyTorch runs."""
    square, eye = (4, 4), torch.eye(4)
    return [
        _case("inv", torch.linalg.inv, square),
        _case("det", torch.linalg.det, square),
        _case("solve", torch.linalg.solve, square, square),
        _case("cholesky", lambda z: torch.linalg.cholesky(z @ z.mH + eye), square),
        _case("eigvals", lambda z: torch.linalg.eigvals(z).sum(0, True), square),
        _case("prod", lambda z: z.prod(0), square),
        _real("eigenvalues of real numbers", _spectrum, _normal(*square)),
    ]


def _spectrum(x: Tensor) -> Tensor:
    return torch.linalg.eig(x)[0].abs().sum()
