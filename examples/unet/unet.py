"""A U-Net that finds discs and rectangles in noisy images.

python unet.py compile --pef-name=unet
python unet.py test --pef=out/unet/unet.pef
python unet.py run --pef=out/unet/unet.pef
python unet.py measure-performance --pef=out/unet/unet.pef

python unet.py compile --inference --pef-name=segment
python unet.py run --inference --pef=out/segment/segment.pef
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.models.unet import UNet
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver
from sambaflow.samba.utils.pef_utils import get_pefmeta
from sambaflow.samba.utils.values import fraction_or_more, positive

SEED, TEST_SEED = 256, 7
TEST_IMAGES = 64
REPORTS = 5


class Segmentation(nn.Module):
    """A U-Net under the sum of cross-entropy and Dice loss."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.unet = UNet(in_channels=1, out_channels=1, init_features=features)

    def forward(
        self, images: torch.Tensor, masks: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """f32[batch, 1, side, side], and masks of 0 and 1 alike -> loss f32[], probabilities.

        Without masks the probabilities alone.
        """
        found = self.unet(images)
        if masks is None:
            return found
        overlap = 2 * (found * masks).sum() + 1
        dice = 1 - overlap / (found.sum() + masks.sum() + 1)
        return F.binary_cross_entropy(found, masks) + dice, found


def shapes(count: int, side: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images with a disc and a rectangle each, and their masks: f32[count, 1, side, side]."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")

    def drawn(low: float, high: float) -> torch.Tensor:
        """One number an image, a fraction of the side."""
        return side * (low + (high - low) * torch.rand(count, 1, 1, generator=generator))

    radius = drawn(0.1, 0.25)
    disc = (x - drawn(0.2, 0.8)).square() + (y - drawn(0.2, 0.8)).square() < radius.square()
    width, height = drawn(0.1, 0.2), drawn(0.1, 0.2)
    rectangle = ((x - drawn(0.2, 0.8)).abs() < width) & ((y - drawn(0.2, 0.8)).abs() < height)
    masks = (disc | rectangle).float()
    noise = torch.randn(count, side, side, generator=generator)
    return (masks + noise).unsqueeze(1), masks.unsqueeze(1)


def intersection_over_union(found: torch.Tensor, masks: torch.Tensor) -> float:
    inside, marked = found > 0.5, masks > 0.5
    return ((inside & marked).sum() / (inside | marked).sum()).item()


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--batch-size", type=positive, default=8)
    parser.add_argument("--side", type=positive, default=32, help="of an image; a multiple of 16")
    parser.add_argument("--features", type=positive, default=8, help="channels of the first level")
    parser.add_argument("--lr", type=fraction_or_more, default=0.003, help="learning rate")


def add_run_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=positive, default=150)
    parser.add_argument("--checkpoint", type=Path, default=Path("unet.pt"))


def named(images: torch.Tensor, masks: torch.Tensor | None = None) -> tuple:
    image = samba.from_torch_tensor(images, name="image", batch_dim=0)
    if masks is None:
        return (image,)
    return image, samba.from_torch_tensor(masks, name="mask", batch_dim=0)


def get_inputs(args: argparse.Namespace) -> tuple:
    images, masks = shapes(args.batch_size, args.side, torch.Generator().manual_seed(SEED))
    return named(images, None if args.inference else masks)


def train(args: argparse.Namespace, model: Segmentation) -> None:
    """Each step on images of its own.  The learning rate falls to 0 along half a cosine."""
    generator = torch.Generator().manual_seed(SEED)
    schedule = 0.5 * args.lr * (1 + torch.cos(torch.linspace(0, torch.pi, args.steps)))
    every = max(1, args.steps // REPORTS)
    for step, lr in enumerate(schedule.tolist(), start=1):
        images, masks = shapes(args.batch_size, args.side, generator)
        loss, found = samba.session.run(
            input_tensors=named(images, masks),
            output_tensors=model.output_tensors,
            hyperparam_dict={"lr": lr},
        )
        if step % every == 0:
            iou = intersection_over_union(samba.to_torch(found), masks)
            print(
                f"Step [{step}/{args.steps}], Loss: {loss.item():.4f}, IoU: {iou:.3f}", flush=True
            )
    samba.session.to_cpu(model)
    torch.save(model.state_dict(), args.checkpoint)
    model.eval()
    images, masks = test_shapes(args)
    with torch.no_grad():
        found = model(images)
    print(f"Test IoU: {intersection_over_union(found, masks):.4f}", flush=True)


def test_shapes(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    return shapes(TEST_IMAGES, args.side, torch.Generator().manual_seed(TEST_SEED))


def segment(args: argparse.Namespace, model: Segmentation) -> None:
    """The test images by an inference PEF, whose batch norm uses the running statistics."""
    images, masks = test_shapes(args)
    found = [
        samba.to_torch(samba.session.run(named(batch), model.output_tensors)[0])
        for batch in images.split(args.batch_size)
    ]
    print(f"Test IoU: {intersection_over_union(torch.cat(found), masks):.4f}", flush=True)


def test(args: argparse.Namespace, model: Segmentation, inputs: tuple) -> None:
    """Compare outputs, gradients and batch norm's statistics with the model on the host."""
    if args.inference:
        (found,) = samba.session.run(inputs, model.output_tensors)
        pairs = [("probabilities", found, model(*inputs))]
    else:
        loss, found = samba.session.run(inputs, model.output_tensors)
        gold_loss, gold_found = model(*inputs)
        gold_loss.backward()
        pairs = [("loss", loss, gold_loss), ("probabilities", found, gold_found)]
        pairs += [(f"gradient of {n}", p.sn_grad, p.grad) for n, p in model.named_parameters()]
        pairs += [(n, b.sn_data, b) for n, b in model.named_buffers()]
    worst = max(utils.assert_close(device, host, name) for name, device, host in pairs)
    print(f"Test passed: {len(pairs)} tensors agree with the host, within {worst:.3g}.")


def main(argv: list[str]) -> None:
    utils.set_seed(SEED)
    args = parse_app_args(argv, common_parser_fn=add_args, run_parser_fn=add_run_args)
    model = Segmentation(args.features)
    optimizer = None
    if args.inference:
        model.eval()
        if args.command == "run":
            model.load_state_dict(torch.load(args.checkpoint))
    samba.from_torch_model_(model)
    inputs = get_inputs(args)
    if not args.inference:
        optimizer = samba.optim.AdamW(model.parameters(), lr=args.lr)

    if args.command == "compile":
        samba.session.compile(
            model,
            inputs,
            optimizer,
            name="unet",
            app_dir=utils.get_file_dir(__file__),
            config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )
    elif args.command in ("run", "test"):
        utils.trace_graph(model, inputs, optimizer, pef=args.pef)
        if args.command == "test":
            test(args, model, inputs)
        elif args.inference:
            segment(args, model)
        else:
            train(args, model)
    else:
        common_app_driver(args, model, inputs, optimizer, name="unet")


if __name__ == "__main__":
    main(sys.argv[1:])
