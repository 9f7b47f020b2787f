"""LeNet on MNIST, with checkpoints: training that can be stopped and resumed, and prediction.

python lenet.py compile --pef-name=lenet
python lenet.py test --pef=out/lenet/lenet.pef
python lenet.py run --pef=out/lenet/lenet.pef --num-epochs 2
python lenet.py run --pef=out/lenet/lenet.pef --num-epochs 4 --resume
python lenet.py measure-performance --pef=out/lenet/lenet.pef

python lenet.py compile --inference --pef-name=predict
python lenet.py run --inference --pef=out/predict/predict.pef
"""

import argparse
import os
import struct
import sys
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
NUM_FEATURES = 784
NUM_CLASSES = 10
SEED = 256
IDX1_MAGIC = 2049
REPORTS_PER_EPOCH = 6


class LeNet(nn.Module):
    """Two convolutions, two poolings and three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, NUM_CLASSES),
        )
        self.criterion = nn.CrossEntropyLoss()

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """f32[batch, 1, 28, 28], i64[batch] -> loss f32[], logits f32[batch, 10].

        Without labels the logits alone.
        """
        logits = self.classifier(self.features(images).flatten(1))
        return logits if labels is None else (self.criterion(logits, labels), logits)


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--batch-size", type=positive, default=32)
    parser.add_argument("--lr", type=fraction_or_more, default=0.01, help="learning rate")
    parser.add_argument("--momentum", type=fraction_or_more, default=0.9, help="momentum factor")
    parser.add_argument("--weight-decay", type=fraction_or_more, default=1e-4, help="L2 penalty")


def add_run_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-e", "--num-epochs", type=positive, default=1, help="epochs in all")
    parser.add_argument(
        "--data-folder", "--data-dir", default="mnist_data", help="MNIST is here, or comes here"
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("lenet.pt"))
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    parser.add_argument(
        "--predictions", type=Path, default=Path("prediction-labels-idx1-ubyte"),
        help="the labels that are predicted for the test images are written here",
    )  # fmt: skip


def get_inputs(args: argparse.Namespace) -> tuple[samba.SambaTensor, ...]:
    """Dummies of the right names, shapes and dtypes."""
    images = samba.randn(args.batch_size, 1, 28, 28, name="image", batch_dim=0)
    if args.inference:
        return (images,)
    return images, samba.randint(NUM_CLASSES, (args.batch_size,), name="label", batch_dim=0)


def named(images: torch.Tensor, labels: torch.Tensor | None = None) -> list[samba.SambaTensor]:
    image = samba.from_torch_tensor(images.view(-1, 1, 28, 28), name="image", batch_dim=0)
    if labels is None:
        return [image]
    return [image, samba.from_torch_tensor(labels, name="label", batch_dim=0)]


def mnist(args: argparse.Namespace, train: bool) -> torch.utils.data.TensorDataset:
    return load_mnist(args.data_folder, {"num_features": NUM_FEATURES}, train=train, sample=SAMPLE)


def train(
    args: argparse.Namespace, model: LeNet, optimizer: torch.optim.Optimizer, first: int
) -> None:
    """Train from epoch `first` on, a checkpoint after each; then evaluate with the same PEF."""
    data = mnist(args, train=True)
    for epoch in range(first, args.num_epochs):
        utils.set_seed(SEED + epoch)  # the order of an epoch does not depend on where one resumed
        train_epoch(args, model, data, f"Epoch [{epoch + 1}/{args.num_epochs}]")
        samba.session.to_cpu(model)
        save(args.checkpoint, model, optimizer, epoch + 1)
    evaluate(args, model)


def train_epoch(args, model: LeNet, data: torch.utils.data.TensorDataset, name: str) -> None:
    hyperparameters = {
        "lr": args.lr,
        "momentum": args.momentum,
        "weight_decay": args.weight_decay,
    }
    steps = batches(data, args.batch_size, shuffle=True)
    every = max(1, len(steps) // REPORTS_PER_EPOCH)
    total = 0.0
    for step, (images, labels) in enumerate(steps, start=1):
        loss, _ = samba.session.run(
            input_tensors=named(images, labels),
            output_tensors=model.output_tensors,
            hyperparam_dict=hyperparameters,
        )
        total += samba.to_torch(loss).item()
        if step % every == 0:
            print(f"{name}, Step [{step}/{len(steps)}], Loss: {total / step:.4f}", flush=True)


def evaluate(args: argparse.Namespace, model: LeNet) -> None:
    """Loss and accuracy on the test images: the forward section of the training PEF."""
    steps = batches(mnist(args, train=False), args.batch_size, shuffle=False)
    total, correct = 0.0, 0
    for images, labels in steps:
        loss, logits = samba.session.run(
            named(images, labels), model.output_tensors, section_types=["FWD"]
        )
        total += samba.to_torch(loss).item()
        correct += int((samba.to_torch(logits).argmax(1) == labels).sum())
    accuracy = correct / (len(steps) * args.batch_size)
    print(f"Test Accuracy: {100 * accuracy:.2f} Loss: {total / len(steps):.4f}", flush=True)


def predict(args: argparse.Namespace, model: LeNet) -> None:
    """Write the labels of the test images, as an IDX file like MNIST's own."""
    images, labels = mnist(args, train=False).tensors
    predicted = []
    for batch in images.split(args.batch_size):
        missing = args.batch_size - len(batch)  # the last batch is filled up and cut again
        full = torch.cat([batch, torch.zeros(missing, NUM_FEATURES)]) if missing else batch
        (logits,) = samba.session.run(named(full), model.output_tensors)
        predicted.append(samba.to_torch(logits).argmax(1)[: len(batch)])
    found = torch.cat(predicted)
    header = struct.pack(">II", IDX1_MAGIC, len(found))
    args.predictions.write_bytes(header + found.to(torch.uint8).numpy().tobytes())
    accuracy = (found == labels).float().mean().item()
    print(f"Predicted {len(found)} labels into {args.predictions}, accuracy {100 * accuracy:.2f}")


def save(path: Path, model: LeNet, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Whole or not at all: written under another name and then renamed."""
    unfinished = path.with_suffix(".unfinished")
    state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def restore(path: Path, model: LeNet, optimizer: torch.optim.Optimizer | None) -> int:
    """The number of epochs that the checkpoint has behind it."""
    if not path.exists():
        sys.exit(f"error: there is no checkpoint {path}; train first, or give --checkpoint")
    state = torch.load(path)
    model.load_state_dict(state["model"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    return state["epoch"]


def test(args: argparse.Namespace, model: LeNet, inputs: tuple) -> None:
    """Compare outputs and every gradient with the model on the host."""
    if args.inference:
        (logits,) = samba.session.run(inputs, model.output_tensors)
        pairs = [("logits", logits, model(*inputs))]
    else:
        gold_loss, gold_logits = model(*inputs)
        loss, logits = samba.session.run(inputs, model.output_tensors)
        gold_loss.backward()
        pairs = [("loss", loss, gold_loss), ("logits", logits, gold_logits)]
        pairs += [(f"gradient of {n}", p.sn_grad, p.grad) for n, p in model.named_parameters()]
    for name, device, host in pairs:
        difference = utils.assert_close(device, host, name)
        print(f"{name}: largest difference {difference:.3g}")
    print("Test passed: the device agrees with the host.")


def run(args, model: LeNet, optimizer: torch.optim.Optimizer | None, inputs: tuple) -> None:
    """Checkpoints are loaded before the trace, which copies them to the device."""
    wanted = args.resume or args.inference
    first = restore(args.checkpoint, model, optimizer) if wanted else 0
    utils.trace_graph(model, inputs, optimizer, pef=args.pef)
    if optimizer is None:
        predict(args, model)
    else:
        train(args, model, optimizer, first)


def main(argv: list[str]) -> None:
    utils.set_seed(SEED)
    args = parse_app_args(argv, common_parser_fn=add_args, run_parser_fn=add_run_args)
    inputs = get_inputs(args)
    model = LeNet()
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
            name="lenet",
            app_dir=utils.get_file_dir(__file__),
            squeeze_bs_dim=True,
            config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )
    elif args.command == "test":
        utils.trace_graph(model, inputs, optimizer, pef=args.pef)
        test(args, model, inputs)
    elif args.command == "run":
        run(args, model, optimizer, inputs)
    else:
        common_app_driver(args, model, inputs, optimizer, name="lenet")


if __name__ == "__main__":
    main(sys.argv[1:])
