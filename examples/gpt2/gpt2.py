"""A GPT-2 language model of characters: training with a scaled loss per token, and generation.

python gpt2.py compile --pef-name=gpt2
python gpt2.py test --pef=out/gpt2/gpt2.pef
python gpt2.py run --pef=out/gpt2/gpt2.pef --num-epochs 120
python gpt2.py measure-performance --pef=out/gpt2/gpt2.pef

python gpt2.py compile --inference --pef-name=generate
python gpt2.py run --inference --pef=out/generate/generate.pef --prompt "Tyger"
python gpt2.py run --inference --pef=out/generate/generate.pef --prompt "Tyger" --temperature 0.7
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver
from sambaflow.samba.utils.pef_utils import get_pefmeta
from sambaflow.samba.utils.values import fraction_or_more, positive

try:
    from transformers import GPT2Config, GPT2LMHeadModel
except ImportError:
    sys.exit("error: this example takes its model from transformers: pip install transformers")

TEXT = Path(__file__).parent / "poems.txt"
VOCABULARY = 128  # ASCII
PADDING = 0
SEED = 256
BETAS = (0.9, 0.95)
MAX_GRAD_NORM = 1.0
HELD_OUT = 0.1  # of the text, at its end


class LanguageModel(GPT2LMHeadModel):
    """GPT-2 whose loss is one number a token."""

    def forward(  # the places of the arguments are those of GPT-2 in transformers
        self,
        input_ids: torch.Tensor,
        past_key_values: None = None,
        attention_mask: None = None,
        token_type_ids: None = None,
        position_ids: None = None,
        inputs_embeds: None = None,
        encoder_hidden_states: None = None,
        encoder_attention_mask: None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """i64[batch, length] twice -> loss f32[batch * length], logits f32[batch, length, 128].

        `labels` are the tokens that follow those of `input_ids`; without them the logits alone.
        """
        hidden = self.transformer(input_ids, use_cache=False)[0]
        logits = self.lm_head(hidden)
        if labels is None:
            return logits
        loss = functional.cross_entropy(
            logits.view(-1, VOCABULARY), labels.view(-1), reduction="none"
        )
        return loss, logits


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--batch-size", type=positive, default=8)
    parser.add_argument("--max-seq-length", type=positive, default=64)
    parser.add_argument("--num-layers", type=positive, default=2)
    parser.add_argument("--num-heads", type=positive, default=4)
    parser.add_argument("--hidden-size", type=positive, default=64)
    parser.add_argument("--lr", type=fraction_or_more, default=6e-3, help="learning rate")
    parser.add_argument("--weight-decay", type=fraction_or_more, default=0.1, help="of matrices")


def add_run_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-e", "--num-epochs", type=positive, default=120)
    parser.add_argument("--checkpoint", type=Path, default=Path("gpt2.pt"))
    parser.add_argument("--prompt", default="The ", help="what the generated text begins with")
    parser.add_argument("--max-new-tokens", type=positive, default=200)
    parser.add_argument(
        "--temperature", type=fraction_or_more, default=0.0,
        help="tokens are drawn with it; the likeliest is taken at 0",
    )  # fmt: skip


def make_model(args: argparse.Namespace) -> LanguageModel:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=args.max_seq_length, n_embd=args.hidden_size,
        n_layer=args.num_layers, n_head=args.num_heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=PADDING, eos_token_id=PADDING,
    )  # fmt: skip
    return LanguageModel(config)


def make_optimizers(args, model: LanguageModel) -> list[torch.optim.Optimizer]:
    """Matrices decay; biases and the parameters of norms do not."""
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    return [
        samba.optim.AdamW(
            group, lr=args.lr, betas=BETAS, weight_decay=decay, max_grad_norm=MAX_GRAD_NORM
        )
        for group, decay in ((matrices, args.weight_decay), (others, 0.0))
    ]


def get_inputs(args: argparse.Namespace) -> tuple[samba.SambaTensor | None, ...]:
    """Dummies in the places of forward's arguments."""
    shape = (1 if args.inference else args.batch_size, args.max_seq_length)
    ids = samba.randint(VOCABULARY, shape, name="input_ids", batch_dim=0)
    if args.inference:
        return (ids,)
    return ids, *[None] * 7, samba.randint(VOCABULARY, shape, name="labels", batch_dim=0)


def encode(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode("ascii", "replace")))


def decode(tokens: torch.Tensor) -> str:
    return bytes(tokens.tolist()).decode("ascii")


def split(train: bool) -> torch.Tensor:
    tokens = encode(TEXT.read_text())
    cut = int(len(tokens) * (1 - HELD_OUT))
    return tokens[:cut] if train else tokens[cut:]


def batches(args, tokens: torch.Tensor, shuffle: bool) -> Iterator[tuple[torch.Tensor, ...]]:
    """(ids, labels, which labels count): windows that follow each other, the rest padded."""
    length, rows = args.max_seq_length, args.batch_size
    start = int(torch.randint(length, ())) if shuffle else 0
    windows = list(range(start, len(tokens) - 1, length))
    order = torch.randperm(len(windows)) if shuffle else torch.arange(len(windows))
    for places in order.split(rows):
        ids = torch.full((rows, length + 1), PADDING)
        for row, place in enumerate(places.tolist()):
            window = tokens[windows[place] : windows[place] + length + 1]
            ids[row, : len(window)] = window
        labels = ids[:, 1:]
        yield ids[:, :-1].contiguous(), labels.contiguous(), labels != PADDING


def named(ids: torch.Tensor, labels: torch.Tensor | None = None) -> list[samba.SambaTensor]:
    """Inputs are matched by name: the empty places of the compilation are left out."""
    given = [samba.from_torch_tensor(ids, name="input_ids", batch_dim=0)]
    if labels is not None:
        given.append(samba.from_torch_tensor(labels, name="labels", batch_dim=0))
    return given


def step(args, model: LanguageModel, batch: tuple[torch.Tensor, ...], **options) -> float:
    """One run; the loss is the mean over the tokens that count.

    The loss of a token is multiplied by its scale, and the scales sum to 1: that starts the
    backward pass.
    """
    ids, labels, counts = batch
    scale = (counts / counts.sum()).flatten()
    model.output_tensors[0].sn_grad = scale
    loss, _ = samba.session.run(named(ids, labels), model.output_tensors, **options)
    return (samba.to_torch(loss) * scale).sum().item()


def evaluate(args, model: LanguageModel) -> float:
    """The loss on the text that is held out, by the forward section of the training PEF."""
    held_out = list(batches(args, split(train=False), shuffle=False))
    losses = [step(args, model, batch, section_types=["FWD"]) for batch in held_out]
    weights = [int(counts.sum()) for _, _, counts in held_out]
    return sum(a * b for a, b in zip(losses, weights, strict=True)) / sum(weights)


def train(args, model: LanguageModel) -> None:
    tokens = split(train=True)
    for epoch in range(args.num_epochs):
        rate = args.lr * min(1.0, (epoch + 1) / 5, (args.num_epochs - epoch) / args.num_epochs)
        losses = [
            step(args, model, batch, hyperparam_dict={"lr": rate})
            for batch in batches(args, tokens, shuffle=True)
        ]
        mean = sum(losses) / len(losses)
        print(f"Epoch [{epoch + 1}/{args.num_epochs}], Loss: {mean:.4f}", flush=True)
    print(f"Held-out Loss: {evaluate(args, model):.4f}", flush=True)
    samba.session.to_cpu(model)
    save(args.checkpoint, model)


def save(path: Path, model: LanguageModel) -> None:
    """Whole or not at all: written under another name and then renamed."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(model.state_dict(), unfinished)
    os.replace(unfinished, path)


def generate(args, model: LanguageModel) -> None:
    """Continue the prompt.  A run takes a fixed length: what is missing is padded at the end,
    where a causal model does not look, and the oldest tokens go when there are too many.
    """
    tokens = encode(args.prompt)
    draw = torch.Generator().manual_seed(SEED)
    for _ in range(args.max_new_tokens):
        known = tokens[-args.max_seq_length :]
        ids = functional.pad(known, (0, args.max_seq_length - len(known)), value=PADDING)
        (logits,) = samba.session.run(named(ids[None]), model.output_tensors)
        following = samba.to_torch(logits)[0, len(known) - 1]
        if args.temperature == 0:
            chosen = following.argmax(keepdim=True)
        else:
            odds = torch.softmax(following / args.temperature, 0)
            chosen = torch.multinomial(odds, 1, generator=draw)
        tokens = torch.cat([tokens, chosen])
    print(decode(tokens))


def test(args, model: LanguageModel, inputs: tuple) -> None:
    """Compare outputs and every gradient with the model on the host."""
    gold = model(*inputs)
    results = samba.session.run(inputs, model.output_tensors)
    if args.inference:
        pairs = [("logits", results[0], gold)]
    else:
        gold[0].mean().backward()
        pairs = [("loss", results[0], gold[0]), ("logits", results[1], gold[1])]
        pairs += [(f"gradient of {n}", p.sn_grad, p.grad) for n, p in model.named_parameters()]
    for name, device, host in pairs:
        difference = utils.assert_close(device, host, name)
        print(f"{name}: largest difference {difference:.3g}")
    print("Test passed: the device agrees with the host.")


def run(args, model: LanguageModel, optimizers: list | None, inputs: tuple) -> None:
    utils.trace_graph(model, inputs, optimizers, pef=args.pef)
    if optimizers is not None:
        train(args, model)
        return
    if not args.checkpoint.exists():
        sys.exit(f"error: there is no checkpoint {args.checkpoint}; train first")
    model.load_state_dict(torch.load(args.checkpoint))
    samba.session.to_rdu(model)
    generate(args, model)


def main(argv: list[str]) -> None:
    utils.set_seed(SEED)
    args = parse_app_args(argv, common_parser_fn=add_args, run_parser_fn=add_run_args)
    inputs = get_inputs(args)
    model = make_model(args)
    samba.from_torch_model_(model)
    optimizers = None if args.inference else make_optimizers(args, model)

    if args.command == "compile":
        samba.session.compile(
            model, inputs, optimizers, name="gpt2", app_dir=utils.get_file_dir(__file__),
            config_dict=vars(args), pef_metadata=get_pefmeta(args, model), init_output_grads=True,
        )  # fmt: skip
    elif args.command == "test":
        utils.trace_graph(model, inputs, optimizers, pef=args.pef)
        test(args, model, inputs)
    elif args.command == "run":
        run(args, model, optimizers, inputs)
    else:
        common_app_driver(args, model, inputs, optimizers, name="gpt2")


if __name__ == "__main__":
    main(sys.argv[1:])
