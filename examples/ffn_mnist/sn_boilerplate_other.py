"""What the commands do with the traced model: train, evaluate, and compare with the host."""

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.utils.benchmark_acc import AccuracyReport
from sambaflow.samba.utils.dataset.mnist import batches, load_mnist

SAMPLE = Path(__file__).parent.parent / "data" / "MNIST" / "raw"
SAMPLES_BETWEEN_REPORTS = 10_000
REPORTS_OF_A_SMALL_EPOCH = 6
# `--acc-test`: lowest test accuracy that passes, in percent.
LEAST_ACCURACY = 91.0


def train(args: argparse.Namespace, model: nn.Module) -> None:
    """Train on MNIST, then test the trained model on the host."""
    data = load_mnist(args.data_folder, args, train=True, sample=SAMPLE)
    start = time.perf_counter()
    samples = sum(_train_epoch(args, model, data, epoch) for epoch in range(args.num_epochs))
    seconds = time.perf_counter() - start
    print(f"Trained on {samples} samples in {seconds:.2f} s: {samples / seconds:.0f} samples/s")

    samba.session.to_cpu(model)
    if args.checkpoint:
        torch.save(model.state_dict(), args.checkpoint)
    _test_on_host(args, model, load_mnist(args.data_folder, args, train=False, sample=SAMPLE))


def _train_epoch(
    args: argparse.Namespace, model: nn.Module, data: TensorDataset, epoch: int
) -> int:
    """Returns the number of samples."""
    hyperparameters = {
        "lr": args.lr,
        "momentum": args.momentum,
        "weight_decay": args.weight_decay,
    }
    between = min(SAMPLES_BETWEEN_REPORTS, len(data) // REPORTS_OF_A_SMALL_EPOCH)
    every = max(1, between // args.batch_size)
    steps = batches(data, args.batch_size, shuffle=True)
    total = 0.0
    for step, (images, labels) in enumerate(steps, start=1):
        loss, _ = samba.session.run(
            input_tensors=[
                samba.from_torch(images, name="image", batch_dim=0),
                samba.from_torch(labels, name="label", batch_dim=0),
            ],
            output_tensors=model.output_tensors,
            hyperparam_dict=hyperparameters,
            data_parallel=args.data_parallel,
            reduce_on_rdu=args.reduce_on_rdu,
        )
        total += samba.to_torch(loss).item()
        if step % every == 0:
            print(
                f"Epoch [{epoch + 1}/{args.num_epochs}], Step [{step}/{len(steps)}], "
                f"Loss: {total / step:.4f}",
                flush=True,
            )
    return len(steps) * args.batch_size


def _test_on_host(args: argparse.Namespace, model: nn.Module, data: TensorDataset) -> None:
    images, labels = data.tensors
    with torch.no_grad():
        loss, logits = model(images, labels)
    _report(args, (logits.argmax(1) == labels).float().mean().item(), loss.item())


def evaluate(args: argparse.Namespace, model: nn.Module) -> None:
    """Loss and accuracy of the forward pass on the device, on MNIST's test images."""
    if args.checkpoint:
        model.load_state_dict(torch.load(args.checkpoint))
        samba.session.to_rdu(model)
    data = load_mnist(args.data_folder, args, train=False, sample=SAMPLE)
    steps = batches(data, args.batch_size, shuffle=False)
    total, correct = 0.0, 0
    start = time.perf_counter()
    for images, labels in steps:
        loss, logits = samba.session.run(
            input_tensors=[
                samba.from_torch(images, name="image", batch_dim=0),
                samba.from_torch(labels, name="label", batch_dim=0),
            ],
            output_tensors=model.output_tensors,
            section_types=["FWD"],
        )
        total += samba.to_torch(loss).item()
        correct += int((samba.to_torch(logits).argmax(1) == labels).sum())
    samples, seconds = len(steps) * args.batch_size, time.perf_counter() - start
    print(f"Evaluated {samples} samples in {seconds:.2f} s: {samples / seconds:.0f} samples/s")
    _report(args, correct / samples, total / len(steps))


def _report(args: argparse.Namespace, accuracy: float, loss: float) -> None:
    print(f"Test Accuracy: {100 * accuracy:.2f} Loss: {loss:.4f}", flush=True)
    if args.acc_report_json:
        AccuracyReport(
            val_metrics={"acc": accuracy, "loss": loss}, batch_size=args.batch_size
        ).save(args.acc_report_json)
    if args.acc_test and 100 * accuracy < LEAST_ACCURACY:
        raise SystemExit(f"--acc-test: the accuracy is below {LEAST_ACCURACY} %")


def test(
    args: argparse.Namespace,
    model: nn.Module,
    inputs: tuple[samba.SambaTensor, ...],
    outputs: tuple[samba.SambaTensor, ...],
) -> None:
    """Compare loss, logits and every gradient with the model on the host; see `assert_close`."""
    samba.session.tracing = False
    gold_loss, gold_logits = model(*inputs)
    loss, logits = samba.session.run(input_tensors=inputs, output_tensors=outputs)
    _compare("loss", loss, gold_loss)
    _compare("logits", logits, gold_logits)
    if not args.inference:
        gold_loss.mean().backward()
        for name, parameter in model.named_parameters():
            _compare(f"gradient of {name}", parameter.sn_grad, parameter.grad)
    print("Test passed: the device agrees with the host.")


def _compare(name: str, device: samba.SambaTensor, host: torch.Tensor) -> None:
    difference = utils.assert_close(device, host, name)
    print(f"{name}: largest difference {difference:.3g}")
