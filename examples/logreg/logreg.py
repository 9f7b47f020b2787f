"""Logistic regression on MNIST.

python logreg.py compile --pef-name=logreg
python logreg.py test --pef=out/logreg/logreg.pef
python logreg.py run --pef=out/logreg/logreg.pef
python logreg.py measure-performance --pef=out/logreg/logreg.pef
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import nn

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver
from sambaflow.samba.utils.dataset.mnist import batches, load_mnist
from sambaflow.samba.utils.pef_utils import get_pefmeta
from sambaflow.samba.utils.values import fraction_or_more, positive

SAMPLE = Path(__file__).parent.parent / "data" / "MNIST" / "raw"
SAMPLES_BETWEEN_REPORTS = 10_000
REPORTS_OF_A_SMALL_EPOCH = 6


class LogReg(nn.Module):
    """A linear layer and the cross-entropy of its outputs."""

    def __init__(self, num_features: int, num_classes: int, bias: bool) -> None:
        super().__init__()
        self.lin_layer = nn.Linear(num_features, num_classes, bias=bias)
        self.criterion = nn.CrossEntropyLoss()

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """f32[batch, features], i64[batch] -> loss f32[], logits f32[batch, classes]"""
        logits = self.lin_layer(images)
        return self.criterion(logits, labels), logits


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lr", type=fraction_or_more, default=0.0015, help="learning rate")
    parser.add_argument("--momentum", type=fraction_or_more, default=0.0, help="momentum factor")
    parser.add_argument("--weight-decay", type=fraction_or_more, default=3e-4, help="L2 penalty")
    parser.add_argument("-e", "--num-epochs", type=positive, default=1)
    parser.add_argument("--num-features", type=positive, default=784, help="pixels of an image")
    parser.add_argument("--num-classes", type=positive, default=10)
    parser.add_argument("--bias", action="store_true", help="a linear layer with a bias")


def add_run_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-folder", "--data-dir", default="mnist_data", help="MNIST is here, or comes here"
    )


def get_inputs(args: argparse.Namespace) -> tuple[samba.SambaTensor, samba.SambaTensor]:
    """Dummies of the right names, shapes and dtypes."""
    images = samba.randn(args.batch_size, args.num_features, name="image", batch_dim=0)
    labels = samba.randint(args.num_classes, (args.batch_size,), name="label", batch_dim=0)
    return images.bfloat16().float(), labels


def named(images: torch.Tensor, labels: torch.Tensor) -> list[samba.SambaTensor]:
    return [
        samba.from_torch_tensor(images, name="image", batch_dim=0),
        samba.from_torch_tensor(labels, name="label", batch_dim=0),
    ]


def train(args: argparse.Namespace, model: nn.Module) -> None:
    """Train on MNIST, then test the trained model on the host."""
    data = load_mnist(args.data_folder, args, train=True, sample=SAMPLE)
    hyperparameters = {
        "lr": args.lr,
        "momentum": args.momentum,
        "weight_decay": args.weight_decay,
    }
    between = min(SAMPLES_BETWEEN_REPORTS, len(data) // REPORTS_OF_A_SMALL_EPOCH)
    every = max(1, between // args.batch_size)
    samples, start = 0, time.perf_counter()
    for epoch in range(args.num_epochs):
        steps = batches(data, args.batch_size, shuffle=True)
        samples += len(steps) * args.batch_size
        total = 0.0
        for step, (images, labels) in enumerate(steps, start=1):
            loss, _ = samba.session.run(
                input_tensors=named(images, labels),
                output_tensors=model.output_tensors,
                hyperparam_dict=hyperparameters,
                data_parallel=args.data_parallel,
                reduce_on_rdu=args.reduce_on_rdu,
            )
            total += samba.to_torch(loss).item()
            if step % every == 0:
                place = f"Epoch [{epoch + 1}/{args.num_epochs}], Step [{step}/{len(steps)}]"
                print(f"{place}, Loss: {total / step:.4f}", flush=True)
    seconds = time.perf_counter() - start
    print(f"Trained on {samples} samples in {seconds:.2f} s: {samples / seconds:.0f} samples/s")
    samba.session.to_cpu(model)

    images, labels = load_mnist(args.data_folder, args, train=False, sample=SAMPLE).tensors
    with torch.no_grad():
        loss, logits = model(images, labels)
    print_result((logits.argmax(1) == labels).float().mean().item(), loss.item())


def evaluate(args: argparse.Namespace, model: nn.Module) -> None:
    """Loss and accuracy of the forward pass on the device, on MNIST's test images."""
    data = load_mnist(args.data_folder, args, train=False, sample=SAMPLE)
    steps = batches(data, args.batch_size, shuffle=False)
    total, correct = 0.0, 0
    for images, labels in steps:
        loss, logits = samba.session.run(
            input_tensors=named(images, labels),
            output_tensors=model.output_tensors,
            section_types=["FWD"],
        )
        total += samba.to_torch(loss).item()
        correct += int((samba.to_torch(logits).argmax(1) == labels).sum())
    print_result(correct / (len(steps) * args.batch_size), total / len(steps))


def print_result(accuracy: float, loss: float) -> None:
    print(f"Test Accuracy: {100 * accuracy:.2f} Loss: {loss:.4f}", flush=True)


def test(args: argparse.Namespace, model: nn.Module, inputs: tuple) -> None:
    """Compare loss, logits and every gradient with the model on the host."""
    gold_loss, gold_logits = model(*inputs)
    loss, logits = samba.session.run(inputs, model.output_tensors)
    pairs = [("loss", loss, gold_loss), ("logits", logits, gold_logits)]
    if not args.inference:
        gold_loss.mean().backward()
        pairs += [(f"gradient of {n}", p.sn_grad, p.grad) for n, p in model.named_parameters()]
    for name, device, host in pairs:
        difference = utils.assert_close(device, host, name)
        print(f"{name}: largest difference {difference:.3g}")
    print("Test passed: the device agrees with the host.")


def main(argv: list[str]) -> None:
    utils.set_seed(256)
    args = parse_app_args(argv=argv, common_parser_fn=add_args, run_parser_fn=add_run_args)
    inputs = get_inputs(args)
    model = LogReg(args.num_features, args.num_classes, args.bias)
    samba.from_torch_model_(model)
    optimizer = None
    if not args.inference:
        optimizer = samba.optim.SGD(
            model.parameters(),
            lr=args.lr,
            momentum=args.momentum,
            weight_decay=args.weight_decay,
        )

    if args.command == "compile":
        samba.session.compile(
            model,
            inputs,
            optimizer,
            name="logreg_torch",
            app_dir=utils.get_file_dir(__file__),
            config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )
    elif args.command in ("run", "test"):
        utils.trace_graph(model, inputs, optimizer, pef=args.pef, mapping=args.mapping)
        if args.command == "test":
            test(args, model, inputs)
        elif args.inference:
            evaluate(args, model)
        else:
            train(args, model)
    else:
        common_app_driver(args, model, inputs, optimizer, name="logreg_torch")


if __name__ == "__main__":
    main(sys.argv[1:])
