"""torchvision's ResNet-18 on MNIST: batch norm in checkpoints, evaluation by an inference PEF.

python resnet18.py compile --pef-name=resnet18
python resnet18.py test --pef=out/resnet18/resnet18.pef
python resnet18.py run --pef=out/resnet18/resnet18.pef
python resnet18.py measure-performance --pef=out/resnet18/resnet18.pef

python resnet18.py compile --inference --pef-name=evaluate
python resnet18.py run --inference --pef=out/evaluate/evaluate.pef
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.sambaloader import SambaLoader
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver
from sambaflow.samba.utils.dataset.mnist import load_mnist
from sambaflow.samba.utils.pef_utils import get_pefmeta
from sambaflow.samba.utils.values import fraction_or_more, positive

SAMPLE = Path(__file__).parent.parent / "data" / "MNIST" / "raw"
SIDE = 32
NUM_CLASSES = 10
SEED = 256
REPORTS = 5
GRADIENT_TOLERANCE = 0.05


class Classifier(nn.Module):
    """ResNet-18 and the cross-entropy of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=NUM_CLASSES)
        self.criterion = nn.CrossEntropyLoss()

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """f32[batch, 1, 32, 32], i64[batch] -> loss f32[], logits f32[batch, 10]"""
        logits = self.net(images.expand(-1, 3, -1, -1))
        return self.criterion(logits, labels), logits


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--batch-size", type=positive, default=32)
    parser.add_argument("--lr", type=fraction_or_more, default=0.02, help="learning rate")
    parser.add_argument("--momentum", type=fraction_or_more, default=0.9, help="momentum factor")
    parser.add_argument("--weight-decay", type=fraction_or_more, default=5e-4, help="L2 penalty")


def add_run_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-e", "--num-epochs", type=positive, default=1)
    parser.add_argument(
        "--images", type=positive, default=3000, help="an epoch has at most so many"
    )
    parser.add_argument(
        "--data-folder", "--data-dir", default="mnist_data", help="MNIST is here, or comes here"
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("resnet18.pt"))


def get_inputs(args: argparse.Namespace) -> tuple:
    images = samba.randn(args.batch_size, 1, SIDE, SIDE, name="image", batch_dim=0)
    return images, samba.randint(NUM_CLASSES, (args.batch_size,), name="label", batch_dim=0)


def loader(args: argparse.Namespace, train: bool) -> SambaLoader:
    """Batches of named tensors, made by a thread of their own."""
    data = load_mnist(args.data_folder, {"num_features": SIDE * SIDE}, train=train, sample=SAMPLE)
    images, labels = (tensor[: args.images] for tensor in data.tensors)
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images.view(-1, 1, SIDE, SIDE), labels),
        batch_size=args.batch_size,
        shuffle=train,
        drop_last=True,
    )
    return SambaLoader(batches, ["image", "label"])


def train(args: argparse.Namespace, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
    hyperparameters = {
        "lr": args.lr,
        "momentum": args.momentum,
        "weight_decay": args.weight_decay,
    }
    for epoch in range(args.num_epochs):
        steps = loader(args, train=True)
        every = max(1, len(steps) // REPORTS)
        total = 0.0
        for step, inputs in enumerate(steps, start=1):
            loss, _ = samba.session.run(
                input_tensors=inputs,
                output_tensors=model.output_tensors,
                hyperparam_dict=hyperparameters,
            )
            total += samba.to_torch(loss).item()
            if step % every == 0:
                place = f"Epoch [{epoch + 1}/{args.num_epochs}], Step [{step}/{len(steps)}]"
                print(f"{place}, Loss: {total / step:.4f}", flush=True)
    samba.session.to_cpu(model)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, args.checkpoint)


def evaluate(args: argparse.Namespace, model: Classifier) -> None:
    """Loss and accuracy of the test images; batch norm uses the checkpoint's statistics."""
    steps = loader(args, train=False)
    total, correct = 0.0, 0
    for images, labels in steps:
        loss, logits = samba.session.run([images, labels], model.output_tensors)
        total += samba.to_torch(loss).item()
        found = samba.to_torch(logits).argmax(1)
        correct += int((found == samba.to_torch(labels)).sum())
    accuracy = correct / (len(steps) * args.batch_size)
    print(f"Test Accuracy: {100 * accuracy:.2f} Loss: {total / len(steps):.4f}", flush=True)


def test(args: argparse.Namespace, model: Classifier, inputs: tuple) -> None:
    """Compare outputs, gradients and batch norm's statistics with the model on the host."""
    loss, logits = samba.session.run(inputs, model.output_tensors)
    gold_loss, gold_logits = model(*inputs)
    pairs = [("loss", loss, gold_loss), ("logits", logits, gold_logits)]
    if not args.inference:
        gold_loss.backward()
        pairs += [(n, b.sn_data, b) for n, b in model.named_buffers()]
        for name, parameter in model.named_parameters():
            check_gradient(name, samba.to_torch(parameter.sn_grad), parameter.grad)
    worst = max(utils.assert_close(device, host, name) for name, device, host in pairs)
    print(f"Test passed: {len(pairs)} tensors agree with the host, within {worst:.3g}.")


def check_gradient(name: str, device: torch.Tensor, host: torch.Tensor) -> None:
    """As a whole, not element by element.

    Of a few hundred thousand activations some are so near to 0 that rounding decides on which side
    of relu's kink they fall; one of them changes these gradients by about a hundredth.
    """
    distance = ((device - host).norm() / host.norm()).item()
    if distance > GRADIENT_TOLERANCE:
        raise AssertionError(f"gradient of {name}: differs by {distance:.3f} of its norm")


def main(argv: list[str]) -> None:
    utils.set_seed(SEED)
    args = parse_app_args(argv, common_parser_fn=add_args, run_parser_fn=add_run_args)
    inputs = get_inputs(args)
    model = Classifier()
    optimizer = None
    if args.inference:
        model.eval()
        if args.command == "run":
            model.load_state_dict(torch.load(args.checkpoint)["model"])
    samba.from_torch_model_(model)
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
            name="resnet18",
            app_dir=utils.get_file_dir(__file__),
            config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )
    elif args.command in ("run", "test"):
        utils.trace_graph(model, inputs, optimizer, pef=args.pef)
        if args.command == "test":
            test(args, model, inputs)
        elif optimizer is None:
            evaluate(args, model)
        else:
            train(args, model, optimizer)
    else:
        common_app_driver(args, model, inputs, optimizer, name="resnet18")


if __name__ == "__main__":
    main(sys.argv[1:])
