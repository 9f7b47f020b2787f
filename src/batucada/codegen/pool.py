"""A small persistent thread pool, as LLVM IR: bounded spinning, then sleeping in the kernel
(futex).

    i64  @batucada_pool_bytes(i64 threads)            memory that so many threads need
    void @batucada_pool_start(ptr pool, i64 threads)  prepare it; the caller counts as one thread
    void @batucada_pool_worker(ptr pool, i64 index)   thread 1 <= index < threads, until stopped
    void @batucada_pool_stop(ptr pool)                make every worker return
    i32  @batucada_parallel(ptr table, ptr task, ptr args, i64 start, i64 stop, i64 step)

The range is cut into one contiguous part a thread, the same parts every time; the code of the
lowest part that failed is returned.  One thread at a time may call `batucada_parallel` on a pool.
A dispatch waits for every worker, so that none can be more than one generation behind.
"""

from __future__ import annotations

from batucada.codegen.schedule import POOL_SLOT
from batucada.codegen.target import Target

_SPINS = 2000
"""Pauses before sleeping: about 25 microseconds on a Zen 3, whose pause takes 40 cycles."""

_FIELDS = {
    "generation": 0, "sleepers": 64, "pending": 128, "waiting": 192,
    "threads": 256, "quit": 264, "task": 272, "table": 280, "args": 288, "start": 296,
    "stop": 304, "step": 312,
}  # fmt: skip
"""Byte offsets; what several threads write has a cache line of its own."""
_CODES = 320  # one i32 for each thread, a cache line apart


def pool_ir(target: Target) -> str:
    """The pool's functions for `target` (the pause instruction and the system call's number
    differ).
    """
    text = _POOL.replace("PAUSE", _pause(target))
    text = text.replace("FUTEX", "202" if target.is_x86 else "98").replace("SPINS", str(_SPINS))
    text = text.replace("POOL_SLOT", str(POOL_SLOT)).replace("CODES", str(_CODES))
    for field, offset in _FIELDS.items():
        text = text.replace(
            f"%{field}.p = FIELD", f"%{field}.p = getelementptr i8, ptr %pool, i64 {offset}"
        )
    return text


def _pause(target: Target) -> str:
    if target.is_x86:
        return "call void @llvm.x86.sse2.pause()"
    return "call void @llvm.aarch64.hint(i32 1)"


_POOL = """declare i64 @syscall(i64, ...)

define i64 @batucada_pool_bytes(i64 %threads) #0 {
  %codes = mul i64 %threads, 64
  %bytes = add i64 %codes, CODES
  ret i64 %bytes
}

define void @batucada_pool_start(ptr %pool, i64 %threads) #0 {
  %generation.p = FIELD
  %sleepers.p = FIELD
  %pending.p = FIELD
  %waiting.p = FIELD
  %threads.p = FIELD
  %quit.p = FIELD
  store i32 0, ptr %generation.p
  store i32 0, ptr %sleepers.p
  store i32 0, ptr %pending.p
  store i32 0, ptr %waiting.p
  store i64 %threads, ptr %threads.p
  store i32 0, ptr %quit.p
  ret void
}

define internal void @batucada.sleep(ptr %word, i32 %value) #0 {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 128, i32 %value, ptr null)
  ret void
}

define internal void @batucada.wake(ptr %word) #0 {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 129, i32 2147483647)
  ret void
}

; returns the word's value once it is no longer %old, or %old after so many spins
define internal i32 @batucada.spin(ptr %word, i32 %old) #2 {
entry:
  br label %try
try:
  %n = phi i64 [ 0, %entry ], [ %n.next, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %now, %old
  %n.next = add i64 %n, 1
  %patient = icmp ult i64 %n, SPINS
  %go = and i1 %same, %patient
  br i1 %go, label %again, label %out
again:
  PAUSE
  br label %try
out:
  ret i32 %now
}

; a new generation is what workers wait for
define internal void @batucada.announce(ptr %pool) #0 {
  %generation.p = FIELD
  %sleepers.p = FIELD
  %old = atomicrmw add ptr %generation.p, i32 1 seq_cst
  %sleepers = load atomic i32, ptr %sleepers.p seq_cst, align 4
  %any = icmp ne i32 %sleepers, 0
  br i1 %any, label %wake, label %out
wake:
  call void @batucada.wake(ptr %generation.p)
  br label %out
out:
  ret void
}

define void @batucada_pool_stop(ptr %pool) #0 {
  %quit.p = FIELD
  store atomic i32 1, ptr %quit.p seq_cst, align 4
  call void @batucada.announce(ptr %pool)
  ret void
}

; part %index of the range, its code stored
define internal i32 @batucada.part(ptr %pool, i64 %index) #2 {
  %threads.p = FIELD
  %task.p = FIELD
  %table.p = FIELD
  %args.p = FIELD
  %start.p = FIELD
  %stop.p = FIELD
  %step.p = FIELD
  %threads = load i64, ptr %threads.p
  %task = load ptr, ptr %task.p
  %table = load ptr, ptr %table.p
  %args = load ptr, ptr %args.p
  %start = load i64, ptr %start.p
  %stop = load i64, ptr %stop.p
  %step = load i64, ptr %step.p
  %span = sub i64 %stop, %start
  %span.up = add i64 %span, %step
  %span.less = sub i64 %span.up, 1
  %count = udiv i64 %span.less, %step
  %index.next = add i64 %index, 1
  %low.n = mul i64 %index, %count
  %low = udiv i64 %low.n, %threads
  %high.n = mul i64 %index.next, %count
  %high = udiv i64 %high.n, %threads
  %low.s = mul i64 %low, %step
  %begin = add i64 %start, %low.s
  %high.s = mul i64 %high, %step
  %high.e = add i64 %start, %high.s
  %over = icmp sgt i64 %high.e, %stop
  %end = select i1 %over, i64 %stop, i64 %high.e
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %run, label %out
run:
  %ran = call i32 %task(ptr %table, ptr %args, i64 %begin, i64 %end)
  br label %out
out:
  %code = phi i32 [ 0, %0 ], [ %ran, %run ]
  %place.n = mul i64 %index, 64
  %place.o = add i64 %place.n, CODES
  %place = getelementptr i8, ptr %pool, i64 %place.o
  store i32 %code, ptr %place
  ret i32 %code
}

define void @batucada_pool_worker(ptr %pool, i64 %index) #0 {
entry:
  %generation.p = FIELD
  %sleepers.p = FIELD
  %pending.p = FIELD
  %waiting.p = FIELD
  %quit.p = FIELD
  br label %wait
wait:
  %seen = phi i32 [ 0, %entry ], [ %seen, %sleep ], [ %now, %work ], [ %now, %tell ]
  %now = call i32 @batucada.spin(ptr %generation.p, i32 %seen)
  %same = icmp eq i32 %now, %seen
  br i1 %same, label %sleep, label %woken
sleep:
  %s = atomicrmw add ptr %sleepers.p, i32 1 seq_cst
  call void @batucada.sleep(ptr %generation.p, i32 %seen)
  %t = atomicrmw sub ptr %sleepers.p, i32 1 seq_cst
  br label %wait
woken:
  %quit = load atomic i32, ptr %quit.p seq_cst, align 4
  %leave = icmp ne i32 %quit, 0
  br i1 %leave, label %out, label %work
work:
  %code = call i32 @batucada.part(ptr %pool, i64 %index)
  %before = atomicrmw sub ptr %pending.p, i32 1 seq_cst
  %last = icmp eq i32 %before, 1
  %waits = load atomic i32, ptr %waiting.p seq_cst, align 4
  %asleep = icmp ne i32 %waits, 0
  %wake = and i1 %last, %asleep
  br i1 %wake, label %tell, label %wait
tell:
  call void @batucada.wake(ptr %pending.p)
  br label %wait
out:
  ret void
}

define internal void @batucada.finish(ptr %pool) #2 {
entry:
  %pending.p = FIELD
  %waiting.p = FIELD
  br label %look
look:
  %left = load atomic i32, ptr %pending.p acquire, align 4
  %none = icmp eq i32 %left, 0
  br i1 %none, label %out, label %spin
spin:
  %now = call i32 @batucada.spin(ptr %pending.p, i32 %left)
  %same = icmp eq i32 %now, %left
  br i1 %same, label %sleep, label %look
sleep:
  store atomic i32 1, ptr %waiting.p seq_cst, align 4
  call void @batucada.sleep(ptr %pending.p, i32 %left)
  br label %look
out:
  store atomic i32 0, ptr %waiting.p seq_cst, align 4
  ret void
}

define i32 @batucada_parallel(ptr %table, ptr %task, ptr %args,
                              i64 %start, i64 %stop, i64 %step) #2 {
entry:
  %pool.s = getelementptr inbounds ptr, ptr %table, i64 POOL_SLOT
  %pool = load ptr, ptr %pool.s
  %absent = icmp eq ptr %pool, null
  br i1 %absent, label %alone, label %split
alone:
  %only = call i32 %task(ptr %table, ptr %args, i64 %start, i64 %stop)
  ret i32 %only
split:
  %threads.p = FIELD
  %task.p = FIELD
  %table.p = FIELD
  %args.p = FIELD
  %start.p = FIELD
  %stop.p = FIELD
  %step.p = FIELD
  %pending.p = FIELD
  %threads = load i64, ptr %threads.p
  store ptr %task, ptr %task.p
  store ptr %table, ptr %table.p
  store ptr %args, ptr %args.p
  store i64 %start, ptr %start.p
  store i64 %stop, ptr %stop.p
  store i64 %step, ptr %step.p
  %threads.n = trunc i64 %threads to i32
  %others = sub i32 %threads.n, 1
  store atomic i32 %others, ptr %pending.p seq_cst, align 4
  call void @batucada.announce(ptr %pool)
  %own = call i32 @batucada.part(ptr %pool, i64 0)
  call void @batucada.finish(ptr %pool)
  br label %collect
collect:
  %i = phi i64 [ 0, %split ], [ %i.next, %next ]
  %place.n = mul i64 %i, 64
  %place.o = add i64 %place.n, CODES
  %place = getelementptr i8, ptr %pool, i64 %place.o
  %code = load i32, ptr %place
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %out, label %next
next:
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %threads
  br i1 %more, label %collect, label %out
out:
  %result = phi i32 [ %code, %collect ], [ 0, %next ]
  ret i32 %result
}
"""
