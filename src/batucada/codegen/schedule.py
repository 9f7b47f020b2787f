"""The order in which kernels run, as LLVM IR functions over a table of buffer addresses.

A table is an array of 64-bit addresses, one a slot.  Slot 0 is the caller's; slot 1 holds the
thread pool, or null: then everything runs on the calling thread.

The calls themselves are data, an array of records that one function walks: a program of a thousand
stages has no more code than its kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

POOL_SLOT = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a kernel.  `buffers` are (slot, byte offset); start, stop and step are those of
    its parallel loop, or 0, 0, 1; a `parallel` call is split over the pool's threads.
    """

    kernel: str
    buffers: tuple[tuple[int, int], ...]
    start: int = 0
    stop: int = 0
    step: int = 1
    parallel: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """`i32 @name(ptr table)`: the calls in order; the first code that is not zero is returned at
    once.  With `marks`, numbers of calls, there is `i32 @name.timed(ptr table, ptr stamps)` as
    well: it writes the processor's cycle counter to an i64 at its start and behind each of them.
    """

    name: str
    calls: tuple[Call, ...]
    marks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """`i32 @name(ptr table, ptr strides, i64 n)`: n steps in one native call.

    Runs `first` once, then n-1 times `body` and table[s] += strides[s] (bytes) for each of the
    `slots` slots, then `last`.  With `first` empty and `body` equal to `last` it is a plain loop of
    n steps. It leaves the table as it is after the last step, and does nothing when n < 1.
    """

    name: str
    first: tuple[Call, ...]
    body: tuple[Call, ...]
    last: tuple[Call, ...]
    slots: int


def schedules_ir(schedules: Sequence[Schedule | Loop]) -> str:
    """The functions of all schedules, with what they need but for the kernels and the pool."""
    writer = _Writer()
    functions: list[str] = []
    for s in schedules:
        if isinstance(s, Loop):
            functions.append(_loop(s, *map(writer.calls, (s.first, s.body, s.last))))
            continue
        calls = writer.calls(s.calls)
        functions.append(_sequence(s.name, calls))
        if s.marks:
            functions.append(_timed(s.name, calls, _ends(writer, s.marks)))
    return "\n".join([_RUN, *writer.constants.values(), *writer.tasks.values(), *functions])


class _Writer:
    """Lists of calls as constants; equal ones are one."""

    def __init__(self) -> None:
        self.constants: dict[str, str] = {}  # what is in it -> its definition
        self.tasks: dict[str, str] = {}  # kernel -> the function that calls it
        self.names: dict[str, str] = {}

    def calls(self, calls: Sequence[Call]) -> str:
        """The arguments `ptr, i64` of `batucada.run`."""
        records = ", ".join(f"%batucada.call {self._record(call)}" for call in calls)
        what = f"[{len(calls)} x %batucada.call] [{records}]"
        return f"ptr {self._constant('calls', what)}, i64 {len(calls)}"

    def _record(self, call: Call) -> str:
        self.tasks.setdefault(call.kernel, _task(call))
        args = self.numbers([number for place in call.buffers for number in place])
        step = call.step if call.parallel else 0
        span = f"i64 {call.start}, i64 {call.stop}, i64 {step}"
        return f"{{ ptr @{call.kernel}.task, {args}, {span} }}"

    def numbers(self, numbers: Sequence[int]) -> str:
        """The argument `ptr` of a list of i64."""
        values = ", ".join(f"i64 {number}" for number in numbers)
        return f"ptr {self._constant('numbers', f'[{len(numbers)} x i64] [{values}]')}"

    def _constant(self, stem: str, what: str) -> str:
        if what not in self.constants:
            self.names[what] = f"@batucada.{stem}{len(self.constants)}"
            self.constants[what] = f"{self.names[what]} = internal constant {what}\n"
        return self.names[what]


_RUN = """%batucada.call = type { ptr, ptr, i64, i64, i64 }

; n records of a task, the places of its buffers, start, stop and step; no step: on this thread
define internal i32 @batucada.run(ptr %table, ptr %calls, i64 %n) #2 {
entry:
  %end = getelementptr %batucada.call, ptr %calls, i64 %n
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %next
next:
  %at = phi ptr [ %calls, %entry ], [ %following, %ran ]
  %args.p = getelementptr %batucada.call, ptr %at, i64 0, i32 1
  %start.p = getelementptr %batucada.call, ptr %at, i64 0, i32 2
  %stop.p = getelementptr %batucada.call, ptr %at, i64 0, i32 3
  %step.p = getelementptr %batucada.call, ptr %at, i64 0, i32 4
  %task = load ptr, ptr %at
  %args = load ptr, ptr %args.p
  %start = load i64, ptr %start.p
  %stop = load i64, ptr %stop.p
  %step = load i64, ptr %step.p
  %split = icmp ne i64 %step, 0
  br i1 %split, label %shared, label %alone
alone:
  %one = call i32 %task(ptr %table, ptr %args, i64 %start, i64 %stop)
  br label %called
shared:
  %all = call i32 @batucada_parallel(ptr %table, ptr %task, ptr %args,
                                     i64 %start, i64 %stop, i64 %step)
  br label %called
called:
  %code = phi i32 [ %one, %alone ], [ %all, %shared ]
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %failed, label %ran
ran:
  %following = getelementptr %batucada.call, ptr %at, i64 1
  %more = icmp ne ptr %following, %end
  br i1 %more, label %next, label %done
failed:
  ret i32 %code
done:
  ret i32 0
}

; the same with the cycle counter in %stamps at the start and after each of %ends calls
define internal i32 @batucada.run_timed(ptr %table, ptr %calls, i64 %n,
                                        ptr %ends, i64 %marks, ptr %stamps) #2 {
entry:
  %begin = call i64 @llvm.readcyclecounter()
  store i64 %begin, ptr %stamps
  br label %next
next:
  %mark = phi i64 [ 0, %entry ], [ %mark.next, %ran ]
  %done = phi i64 [ 0, %entry ], [ %end, %ran ]
  %left = icmp ult i64 %mark, %marks
  br i1 %left, label %part, label %rest
part:
  %end.p = getelementptr i64, ptr %ends, i64 %mark
  %end = load i64, ptr %end.p
  %count = sub i64 %end, %done
  %at = getelementptr %batucada.call, ptr %calls, i64 %done
  %code = call i32 @batucada.run(ptr %table, ptr %at, i64 %count)
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %failed, label %ran
ran:
  %now = call i64 @llvm.readcyclecounter()
  %mark.next = add i64 %mark, 1
  %stamp = getelementptr i64, ptr %stamps, i64 %mark.next
  store i64 %now, ptr %stamp
  br label %next
rest:
  %tail = getelementptr %batucada.call, ptr %calls, i64 %done
  %over = sub i64 %n, %done
  %last = call i32 @batucada.run(ptr %table, ptr %tail, i64 %over)
  ret i32 %last
failed:
  ret i32 %code
}

declare i64 @llvm.readcyclecounter()
"""


def _sequence(name: str, calls: str) -> str:
    return f"""define i32 @{name}(ptr %table) #2 {{
  %code = call i32 @batucada.run(ptr %table, {calls})
  ret i32 %code
}}
"""


def _ends(writer: _Writer, marks: Sequence[int]) -> str:
    assert list(marks) == sorted(set(marks))
    return f"{writer.numbers([mark + 1 for mark in marks])}, i64 {len(marks)}"


def _timed(name: str, calls: str, ends: str) -> str:
    return f"""define i32 @{name}.timed(ptr %table, ptr %stamps) #2 {{
  %code = call i32 @batucada.run_timed(ptr %table, {calls}, {ends}, ptr %stamps)
  ret i32 %code
}}
"""


def _task(call: Call) -> str:
    """Runs the kernel on a part of its range, with addresses taken from the table."""
    lines: list[str] = []
    for n in range(len(call.buffers)):
        lines.append(f"  %s{n}.p = getelementptr i64, ptr %args, i64 {2 * n}")
        lines.append(f"  %o{n}.p = getelementptr i64, ptr %args, i64 {2 * n + 1}")
        lines.append(f"  %s{n} = load i64, ptr %s{n}.p")
        lines.append(f"  %o{n} = load i64, ptr %o{n}.p")
        lines.append(f"  %e{n} = getelementptr ptr, ptr %table, i64 %s{n}")
        lines.append(f"  %b{n} = load ptr, ptr %e{n}")
        lines.append(f"  %p{n} = getelementptr i8, ptr %b{n}, i64 %o{n}")
    arguments = ", ".join(
        [*(f"ptr %p{n}" for n in range(len(call.buffers))), "i64 %begin, i64 %end"]
    )
    lines.append(f"  %code = call i32 @{call.kernel}({arguments})")
    head = (
        f"define internal i32 @{call.kernel}.task"
        "(ptr %table, ptr %args, i64 %begin, i64 %end) #0 {"
    )
    return "\n".join([head, *lines, "  ret i32 %code", "}\n"])


def _loop(loop: Loop, first: str, body: str, last: str) -> str:
    return f"""define i32 @{loop.name}(ptr %table, ptr %strides, i64 %n) #2 {{
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %begin, label %done
begin:
  %first = call i32 @batucada.run(ptr %table, {first})
  %first.bad = icmp ne i32 %first, 0
  br i1 %first.bad, label %failed, label %steps
steps:
  %left = phi i64 [ %n, %begin ], [ %left.next, %advanced ]
  %more = icmp sgt i64 %left, 1
  br i1 %more, label %step, label %finish
step:
  %code = call i32 @batucada.run(ptr %table, {body})
  %code.bad = icmp ne i32 %code, 0
  br i1 %code.bad, label %failed, label %advance
advance:
  %s = phi i64 [ 0, %step ], [ %s.next, %advance ]
  %slot = getelementptr inbounds i64, ptr %table, i64 %s
  %stride = getelementptr inbounds i64, ptr %strides, i64 %s
  %address = load i64, ptr %slot
  %by = load i64, ptr %stride
  %moved = add i64 %address, %by
  store i64 %moved, ptr %slot
  %s.next = add nuw nsw i64 %s, 1
  %s.more = icmp ult i64 %s.next, {max(1, loop.slots)}
  br i1 %s.more, label %advance, label %advanced
advanced:
  %left.next = sub i64 %left, 1
  br label %steps
finish:
  %last = call i32 @batucada.run(ptr %table, {last})
  ret i32 %last
failed:
  %why = phi i32 [ %first, %begin ], [ %code, %step ]
  ret i32 %why
done:
  ret i32 0
}}
"""
