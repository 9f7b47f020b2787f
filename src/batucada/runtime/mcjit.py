"""Loads object code with LLVM's own loader, for processors other than x86-64."""

from __future__ import annotations

import llvmlite.binding as llvm

from batucada.errors import PefError


class JitObject:
    """An object placed in memory by LLVM's execution engine."""

    def __init__(self, data: bytes) -> None:
        if data[:4] != b"\x7fELF":
            raise PefError("the object code is damaged: no ELF file")
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        try:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        except ValueError as error:
            raise PefError(f"the object code is damaged: {error}") from error
        self._engine.finalize_object()

    def address(self, name: str) -> int | None:
        """Where the function called `name` is; None when the object has none."""
        return self._engine.get_function_address(name) or None
