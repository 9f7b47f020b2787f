"""LLVM IR text -> object code (ELF, relocatable, position independent) or assembly.  Needs no
compiler.

The caller has chosen tiles, vectors and unrolling, shared the addresses and hoisted what a loop
need not repeat, so LLVM's standard pipeline finds nothing more; it takes three times as long as
the passes that are left: inlining, promotion of registers, combining.
"""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

from batucada.codegen.builder import ELEMENTARY
from batucada.codegen.target import Target

_PLAIN = {"x86-64-v4": "x86-64-v3"}
"""The level for kernels without elementary functions, where it is another.  With AVX-512's form of
instructions on 8 lanes, in which LLVM takes registers 16 to 31, products are 3 to 12 % slower on a
Zen 4; elementary functions gain from its masks and from its vectors of 16 lanes.
"""


def assemble(module_ir: str, target: Target) -> bytes:
    """An ELF relocatable object for `target`."""
    machine = _machine(target)
    return machine.emit_object(_optimized(_for_level(module_ir, target), machine))


def assembly(module_ir: str, target: Target) -> str:
    """What `assemble` would give, as text for people."""
    machine = _machine(target)
    return machine.emit_assembly(_optimized(_for_level(module_ir, target), machine))


def _for_level(module_ir: str, target: Target) -> str:
    """The module with its kernels of elementary functions on the whole level."""
    if target.level not in _PLAIN:
        return module_ir
    head = f"attributes {ELEMENTARY} = {{"
    return module_ir.replace(head, f'{head} "target-cpu"="{target.level}"')


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _machine(target: Target) -> llvm.TargetMachine:
    _initialize()
    cpu = _PLAIN.get(target.level, target.level) if target.is_x86 else "generic"
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(cpu=cpu, opt=3, reloc="pic", codemodel="small")


def _optimized(module_ir: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    module = llvm.parse_assembly(module_ir)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    inlining = llvm.create_new_module_pass_manager()
    inlining.add_always_inliner_pass()
    inlining.add_global_dead_code_eliminate_pass()
    inlining.run(module, builder)
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module
