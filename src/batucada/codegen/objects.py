"""LLVM IR text -> object code (ELF, relocatable, position independent) or assembly.  Needs no
compiler.

The caller has chosen tiles, vectors and unrolling, so LLVM's own vectorisers and unrollers stay
off: it promotes, combines, hoists, allocates registers and schedules.
"""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

from batucada.codegen.target import Target


def assemble(module_ir: str, target: Target) -> bytes:
    """An ELF relocatable object for `target`."""
    machine = _machine(target)
    return machine.emit_object(_optimized(module_ir, machine))


def assembly(module_ir: str, target: Target) -> str:
    """What `assemble` would give, as text for people."""
    machine = _machine(target)
    return machine.emit_assembly(_optimized(module_ir, machine))


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _machine(target: Target) -> llvm.TargetMachine:
    _initialize()
    cpu = target.level if target.is_x86 else "generic"
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(cpu=cpu, opt=3, reloc="pic", codemodel="small")


def _optimized(module_ir: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    module = llvm.parse_assembly(module_ir)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    tuning.loop_unrolling = False
    tuning.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return module
