"""Programs in the styles that public SambaFlow programs have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from batucada.errors import BatucadaError, InputError, OptionError
from sambaflow import samba
from sambaflow.samba import utils
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver
from sambaflow.samba.utils.pef_utils import PefInfoStruct, get_pef_info, get_pefmeta
from tests.apps import load_program

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_program_of_2021() -> None:
    main = load_program(PROGRAMS / "peaks.py").main
    main(["compile", "--pef-name=peaks.pef", "--output-folder=pef", "-mbsize", "4"])
    losses = main(["run", "-p", "pef/peaks/peaks.pef", "-mbsize", "4", "-lr", "0.1"])
    assert losses[-1] < losses[0] / 2


def test_holes_lists_and_scaled_losses() -> None:
    main = load_program(PROGRAMS / "tokens.py").main
    main(["compile", "--pef-name=tokens"])
    losses, host, device = main(["run", "--pef=out/tokens/tokens.pef", "--ckpt", "w.pt"])
    assert losses[-1] < losses[0] / 2
    assert device == pytest.approx(host, rel=1e-3)
    saved = torch.load("w.pt")
    assert saved["optimizer"]["state"][0]["exp_avg"].abs().sum() > 0


class Net(nn.Module):
    """Two inputs by keyword, two outputs of which the loss is the second."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("scale", torch.full((3,), 2.0))

    def forward(self, x, target, use_scale=True):
        out = self.linear(x) * (self.scale if use_scale else 1)
        return nn.functional.mse_loss(out, target), out


def net_inputs(batch: int = 4) -> tuple:
    return samba.randn(batch, 6, name="x", batch_dim=0), samba.randn(batch, 3, name="target")


def traced_net(momentum: float = 0.9) -> tuple:
    utils.set_seed(5)
    model, inputs = Net(), net_inputs()
    samba.from_torch_model_(model)
    optimizer = samba.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    path = samba.session.compile(model, inputs, optimizer, config_dict={"pef_name": "net"})
    samba.utils.trace_graph(model, inputs, optimizer, pef=path)
    return model, inputs, optimizer


def test_the_device_has_its_own_parameters() -> None:
    model, inputs, optimizer = traced_net()
    before = model.linear.weight.detach().clone()
    loss, _ = model(*inputs)
    loss.backward()
    result = samba.session.run(inputs, model.output_tensors)
    utils.assert_close(result[0], loss, "loss")
    utils.assert_close(model.linear.weight.sn_grad, model.linear.weight.grad, "gradient")
    assert torch.equal(model.linear.weight, before)
    optimizer.step()
    utils.assert_close(model.linear.weight.sn_data, model.linear.weight, "weight")
    samba.session.to_cpu(model)
    assert not torch.equal(model.linear.weight, before)


def test_results_outlive_later_runs() -> None:
    model, inputs, _ = traced_net()
    first = samba.session.run(inputs, model.output_tensors)
    second = samba.session.run(inputs, model.output_tensors)
    kept = first[0].item()
    samba.session.run(inputs, model.output_tensors)
    assert first[0].item() == kept
    assert second[0].item() < kept


def test_forward_alone_changes_nothing() -> None:
    model, inputs, _ = traced_net()
    losses = [
        samba.session.run(inputs, model.output_tensors, section_types=[section])[0].item()
        for section in ("FWD", "fwd")
    ]
    assert losses[0] == losses[1]


def test_optimizer_state_follows_the_device_and_back() -> None:
    model, inputs, optimizer = traced_net()
    samba.session.run(inputs, model.output_tensors)
    saved, weights = optimizer.state_dict(), torch.Tensor(model.linear.weight).clone()
    gradient = samba.to_torch(model.linear.weight.sn_grad)
    places = [p.shape for p in model.parameters()]
    momentum = saved["state"][places.index(gradient.shape)]["momentum_buffer"]
    utils.assert_close(momentum, gradient, "momentum")
    assert torch.equal(model.linear.weight, weights), "state_dict() moves no parameters"


@pytest.mark.parametrize("section_types", [["bckwd", "opt"], ["BCKWD", "OPT"]])
def test_loss_on_the_host(section_types: list[str]) -> None:
    model, inputs, _ = traced_net(momentum=0.0)
    target = inputs[1].torch()
    outputs = samba.session.run(inputs, model.output_tensors, section_types=["fwd"])
    out = samba.to_torch(outputs[1])
    out.requires_grad = True
    (3 * nn.functional.l1_loss(out, target)).backward()
    gold = Net()
    gold.load_state_dict(model.state_dict())
    (3 * nn.functional.l1_loss(gold(inputs[0].torch(), target)[1], target)).backward()
    model.output_tensors[0].sn_grad = torch.zeros(())
    model.output_tensors[1].sn_grad = out.grad
    samba.session.run(inputs, model.output_tensors, section_types=section_types)
    utils.assert_close(model.linear.weight.sn_grad, gold.linear.weight.grad, "gradient")


def test_dict_inputs_with_plain_values_and_bare_outputs() -> None:
    model = Net()
    samba.from_torch_model_(model)
    x, target = net_inputs()
    inputs = {"x": x, "target": target, "use_scale": False}
    path = samba.session.compile(model, inputs, inference=True, config_dict={"pef_name": "net"})
    samba.utils.trace_graph(model, inputs, pef=path)
    (out,) = samba.session.run(inputs, model.output_tensors[1])  # type: ignore[index]
    utils.assert_close(out, model.linear(samba.to_torch(x)), "out")


def test_inputs_without_names_go_by_place_and_shape_may_differ() -> None:
    _, inputs, _ = traced_net()
    named = samba.session.run(inputs, section_types=["fwd"])[0].item()
    plain = [inputs[0].torch().reshape(4, 6, 1), samba.from_torch(inputs[1].torch())]
    assert samba.session.run(plain, section_types=["fwd"])[0].item() == named


def test_wrong_inputs_are_named() -> None:
    _, inputs, _ = traced_net()
    x, target = (tensor.torch() for tensor in inputs)
    wrong = [
        {"x": x},
        {"x": x[:3], "target": target},
        {"x": x, "target": target, "another": x},
        {"x": x.to(torch.complex64), "target": target},
    ]
    for given in wrong:
        with pytest.raises(InputError):
            samba.session.run(samba.from_named_dict(given))
    with pytest.raises(InputError):
        samba.session.run([*inputs, inputs[0]])
    with pytest.raises(InputError, match="is a str"):
        samba.session.run([inputs[0], "target"])


def test_output_gradients_belong_to_outputs() -> None:
    _, inputs, _ = traced_net()
    with pytest.raises(OptionError, match="an output only"):
        inputs[0].sn_grad = torch.ones(1)


def test_symbols_by_name_and_by_object() -> None:
    model, _, _ = traced_net()
    (by_name,) = samba.session.get_tensors_by_name(["net__linear__weight"])
    assert torch.equal(by_name.torch(), model.linear.weight)
    assert torch.equal(samba.session.buffer_dict["net__scale"].torch(), model.scale)
    assert samba.session.optim_dict
    with pytest.raises(OptionError, match="no counterpart"):
        _ = torch.ones(1).sn_grad  # type: ignore[attr-defined]


def test_runtime_profile_counts_runs() -> None:
    model, inputs, _ = traced_net()
    samba.session.start_runtime_profile()
    for _ in range(3):
        samba.session.run(inputs, model.output_tensors)
    samba.session.end_runtime_profile("profile.log")
    samba.session.run(inputs, model.output_tensors)
    assert len(Path("profile.log").read_text().splitlines()) == 4
    with pytest.raises(OptionError, match="without start"):
        samba.session.end_runtime_profile("profile.log")


def test_metadata_is_read_back() -> None:
    model, inputs = Net(), net_inputs()
    samba.from_torch_model_(model)
    args = parse_app_args(["compile", "--inference", "--pef-name", "net"])
    path = samba.session.compile(
        model, inputs, config_dict=vars(args), pef_metadata=get_pefmeta(args, model)
    )
    found = get_pef_info(path, {"pef_name": PefInfoStruct(), "model": PefInfoStruct()})
    assert found == {"pef_name": "net", "model": repr(model)}
    with pytest.raises(ValueError, match="no such_key"):
        get_pef_info(path, {"such_key": PefInfoStruct()})


@pytest.mark.parametrize("command", ["run", "test"])
def test_the_driver_leaves_run_and_test_to_the_program(command: str) -> None:
    args = parse_app_args([command, "--pef", "none.pef"])
    common_app_driver(args, Net(), net_inputs(), None, "net", get_output_grads=False)


@pytest.mark.parametrize("command", ["measure-performance", "measure-sections", "measure-cpu"])
def test_the_driver_measures(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, inputs, optimizer = traced_net()
    pef = [] if command == "measure-cpu" else ["--pef", "out/net/net.pef"]
    args = parse_app_args([command, *pef, "-n", "5", "-b", "4"])
    common_app_driver(args, model, inputs, optimizer, "net", app_dir=".")
    assert "measured over 5 iterations." in capsys.readouterr().out


def test_a_converted_model_saves_after_a_trace(tmp_path: Path) -> None:
    model, inputs, _ = traced_net()
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    samba.from_torch_model_(loaded)
    assert torch.equal(loaded(*inputs)[1].torch(), model(*inputs)[1].torch())


def test_what_an_rdu_has_and_this_has_not_says_so() -> None:
    for use in (
        lambda: samba.session.add_graph(None),
        lambda: samba.graph.FwdGraph((), (), "g"),
        lambda: utils.trace_multigraph(None, {}),
        lambda: samba.session.compile(Net(), net_inputs(), no_such_argument=1),
    ):
        with pytest.raises(BatucadaError):
            use()
