"""The order in which kernels run, as LLVM IR functions over a table of buffer addresses.

A table is an array of 64-bit addresses, one a slot.  Slot 0 is the caller's; slot 1 holds the
thread pool, or null: then everything runs on the calling thread.
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


def schedule_ir(schedule: Schedule | Loop) -> str:
    """The schedule's function and those that it needs."""
    if isinstance(schedule, Schedule):
        text = _sequence(schedule.name, schedule.calls)
        return f"{text}\n{_timed(schedule)}" if schedule.marks else text
    parts = {"first": schedule.first, "body": schedule.body, "last": schedule.last}
    texts = [
        _sequence(f"{schedule.name}.{part}", calls, "internal ") for part, calls in parts.items()
    ]
    return "\n".join([*texts, _loop(schedule)])


def _sequence(name: str, calls: Sequence[Call], linkage: str = "") -> str:
    tasks = [_task(f"{name}.task{n}", call) for n, call in enumerate(calls)]
    body = "".join(_step(f"{name}.task{n}", n, call) for n, call in enumerate(calls))
    function = f"define {linkage}i32 @{name}(ptr %table) #2 {{\n{body}  ret i32 0\n}}\n"
    return "\n".join([*tasks, function])


def _timed(schedule: Schedule) -> str:
    number = {call: place for place, call in enumerate(schedule.marks, 1)}
    body = _stamp(0)
    for n, call in enumerate(schedule.calls):
        body += _step(f"{schedule.name}.task{n}", n, call)
        body += _stamp(number[n]) if n in number else ""
    head = f"define i32 @{schedule.name}.timed(ptr %table, ptr %stamps) #2 {{"
    return f"declare i64 @llvm.readcyclecounter()\n{head}\n{body}  ret i32 0\n}}\n"


def _stamp(place: int) -> str:
    return (
        f"  %now{place} = call i64 @llvm.readcyclecounter()\n"
        f"  %stamp{place} = getelementptr i64, ptr %stamps, i64 {place}\n"
        f"  store i64 %now{place}, ptr %stamp{place}\n"
    )


def _step(task: str, n: int, call: Call) -> str:
    span = f"i64 {call.start}, i64 {call.stop}"
    direct = f"call i32 @{task}(ptr %table, {span})"
    split = f"call i32 @batucada_parallel(ptr %table, ptr @{task}, {span}, i64 {call.step})"
    return (
        f"  %code{n} = {split if call.parallel else direct}\n"
        f"  %bad{n} = icmp ne i32 %code{n}, 0\n"
        f"  br i1 %bad{n}, label %stop{n}, label %go{n}\n"
        f"stop{n}:\n  ret i32 %code{n}\n"
        f"go{n}:\n"
    )


def _task(name: str, call: Call) -> str:
    """Runs the kernel on a part of its range, with addresses taken from the table."""
    lines: list[str] = []
    for n, (slot, offset) in enumerate(call.buffers):
        lines.append(f"  %s{n} = getelementptr inbounds ptr, ptr %table, i64 {slot}")
        lines.append(f"  %b{n} = load ptr, ptr %s{n}")
        lines.append(f"  %p{n} = getelementptr i8, ptr %b{n}, i64 {offset}")
    arguments = ", ".join(
        [*(f"ptr %p{n}" for n in range(len(call.buffers))), "i64 %begin, i64 %end"]
    )
    lines.append(f"  %code = call i32 @{call.kernel}({arguments})")
    head = f"define internal i32 @{name}(ptr %table, i64 %begin, i64 %end) #0 {{"
    return "\n".join([head, *lines, "  ret i32 %code", "}\n"])


def _loop(loop: Loop) -> str:
    name = loop.name
    return f"""define i32 @{name}(ptr %table, ptr %strides, i64 %n) #2 {{
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %begin, label %done
begin:
  %first = call i32 @{name}.first(ptr %table)
  %first.bad = icmp ne i32 %first, 0
  br i1 %first.bad, label %failed, label %steps
steps:
  %left = phi i64 [ %n, %begin ], [ %left.next, %advanced ]
  %more = icmp sgt i64 %left, 1
  br i1 %more, label %step, label %finish
step:
  %code = call i32 @{name}.body(ptr %table)
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
  %last = call i32 @{name}.last(ptr %table)
  ret i32 %last
failed:
  %why = phi i32 [ %first, %begin ], [ %code, %step ]
  ret i32 %why
done:
  ret i32 0
}}
"""
