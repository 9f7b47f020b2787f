"""Names that public programs import: there, or there and clear about what is missing."""

from __future__ import annotations

import importlib
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from batucada.errors import OptionError
from sambaflow import samba
from sambaflow.models.unet import UNet
from sambaflow.samba.argconf.args import CompileArgs
from sambaflow.samba.utils import argparser

THERE = """
mac.metadata:TilingMetadata mac.metadata:ConvTilingMetadata sambacollections:OrderedSet
models.unet:UNet logging:samba_logger samba.sambatensor:from_torch_tensor samba.sambatensor:DimInfo
samba.session:SambaSession samba.nn.parameter:SambaParameter samba.optim.adam:AdamW
samba.functional.arithmetic:mul samba.functional.tensorarithmetic:addmm
samba.functional.reduce:argmax samba.functional.logical:bitwise_not
samba.functional.tensorops:cat samba.functional.loss:cross_entropy
samba.functional.stir:sn_zipmapreduce samba.sambaloader:SambaLoader samba.profiler:Profiler
samba.directives:op_fusion samba.schema.snconfig:SNConfig samba.argconf.args:RunArgs
samba.utils.utils:trace_graph samba.utils.weight_norm:weight_norm_ samba.utils:SNType
samba.utils.benchmark_acc:AccuracyReport samba.utils.numeric:MAX_BF16_TRUNCATE_NORMAL_REL
samba.test:consistency_test samba.lazy_param:RNGProviderFactory samba.materialize:materialize
""".split()

ABSENT = """
online_inference_service.sn_sqs_handler:Queue samba:groupby samba.sn_private:sn_gather
samba.sn_private:sn_scatter samba.sn_private:sn_multinomial samba.optim:SparseAdamW
samba.experiment_logger:AccMeter samba.experiment_logger:DisplayMeter
samba.experiment_logger:CountMeter samba.experiment_logger:Logger samba.utils:trace_multigraph
samba.utils:create_mac_resource_report samba.utils.checkpoint:load_sharded_checkpoint
samba.utils.tensorboard_debug:dump_accuracy_debug_info samba.utils.trainer.samba:train
samba.utils.trainer.torch:train samba.graph:FwdGraph samba.graph:SambaGraph
""".split()


def imported(name: str) -> Any:
    module, attribute = name.split(":")
    return getattr(importlib.import_module(f"sambaflow.{module}"), attribute)


@pytest.mark.parametrize("name", THERE)
def test_it_is_there(name: str) -> None:
    assert imported(name) is not None


@pytest.mark.parametrize("name", ABSENT)
def test_it_says_what_is_missing(name: str) -> None:
    with pytest.raises(OptionError, match=rf"{name.split(':')[1]}.* is not there: \w+"):
        imported(name)()


def test_they_are_attributes_of_samba_as_well() -> None:
    for name in "argconf.args experiment_logger functional.loss schema sn_private utils".split():
        found: Any = samba
        for part in name.split("."):
            found = getattr(found, part)
        assert found is importlib.import_module(f"sambaflow.samba.{name}")


def test_a_record_of_arguments_serves_as_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argparser, "_settings", {})
    args = CompileArgs(pef_name="mine", arch="sn30", of_the_program=3)
    assert (args.output_folder, args.of_the_program) == ("out", 3)
    samba.session.setup(args)
    assert argparser.current_settings()["pef_name"] == "mine"


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(2, 3, 2)])
def test_weight_norm_is_torchs(layer: nn.Module) -> None:
    ours, theirs = layer, torch.nn.utils.parametrizations.weight_norm(deepcopy(layer))
    samba.utils.weight_norm_(ours)
    x = torch.randn(5, 4) if isinstance(layer, nn.Linear) else torch.randn(5, 2, 3, 3)
    for model in (ours, theirs):
        model(x).square().sum().backward()
    torch.testing.assert_close(ours(x), theirs(x))
    found = dict(ours.named_parameters())
    wanted = dict(theirs.named_parameters())
    for name, original in (("magnitude", "original0"), ("direction", "original1")):
        torch.testing.assert_close(
            found[f"weight_{name}"].grad, wanted[f"parametrizations.weight.{original}"].grad,
        )  # fmt: skip


def test_the_unet_keeps_the_size_of_its_images() -> None:
    found = UNet(in_channels=2, out_channels=3, init_features=4)(torch.randn(2, 2, 32, 16))
    assert found.shape == (2, 3, 32, 16)
    assert ((found > 0) & (found < 1)).all()
