"""LLVM IR that runs a kernel, on several threads where it is asked for and pays.

The slices are those of `launcher.Prepared` and `threads.plan_slices`. Threads are POSIX threads
that live for one launch. Where one cannot be started, the caller does its slice.
"""

from __future__ import annotations

from einloom.backends.cpu.launcher import SLICE_WORK
from einloom.backends.cpu.threads import MOST_THREADS

LAUNCH = "einloom.launch"

# One slice: kernel, bases, parameters, begin, end, fault (2), status, started, thread.
_RECORD = "{ ptr, ptr, ptr, i64, i64, [2 x i64], i32, i32, i64 }"
_KERNEL = "i32 %kernel(ptr %bases, ptr %parameters,"

LAUNCH_CALLS = {
    "malloc": ("noalias ptr", ["i64"]),
    "free": ("void", ["ptr"]),
    "llvm.smax.i64": ("i64", ["i64", "i64"]),
    "llvm.smin.i64": ("i64", ["i64", "i64"]),
    "pthread_create": ("i32", ["ptr"] * 4),
    "pthread_join": ("i32", ["i64", "ptr"]),
}
"""What the functions below call: results and arguments."""

LAUNCH_FUNCTION = f"""\
define internal ptr @einloom.run_slice(ptr %record) nounwind {{
entry:
  %kernel = load ptr, ptr %record, align 8
  %bases.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 1
  %bases = load ptr, ptr %bases.place, align 8
  %parameters.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 2
  %parameters = load ptr, ptr %parameters.place, align 8
  %begin.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 3
  %begin = load i64, ptr %begin.place, align 8
  %end.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 4
  %end = load i64, ptr %end.place, align 8
  %fault = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 5
  %status = call {_KERNEL} i64 %begin, i64 %end, ptr %fault)
  %status.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 6
  store i32 %status, ptr %status.place, align 8
  ret ptr null
}}

define internal i32 @{LAUNCH}(ptr %kernel, ptr %bases, ptr %parameters, i64 %slices, i64 %work, \
i64 %threads, ptr %fault) nounwind {{
entry:
  %asked = icmp sgt i64 %threads, 1
  %pays = icmp sgt i64 %work, {SLICE_WORK}
  %several = icmp sgt i64 %slices, 1
  %worth = and i1 %asked, %pays
  %wanted = and i1 %worth, %several
  br i1 %wanted, label %plan, label %serial
serial:
  %whole = call {_KERNEL} i64 0, i64 %slices, ptr %fault)
  ret i32 %whole
plan:
  %portions = udiv i64 %work, {SLICE_WORK}
  %least = udiv i64 %slices, %portions
  %grain = call i64 @llvm.smax.i64(i64 %least, i64 1)
  %rounded = add i64 %slices, %grain
  %above = sub i64 %rounded, 1
  %grains = udiv i64 %above, %grain
  %few = call i64 @llvm.smin.i64(i64 %threads, i64 {MOST_THREADS})
  %count = call i64 @llvm.smin.i64(i64 %few, i64 %grains)
  %alone = icmp slt i64 %count, 2
  br i1 %alone, label %serial, label %reserve
reserve:
  %one = getelementptr {_RECORD}, ptr null, i64 1
  %size = ptrtoint ptr %one to i64
  %bytes = mul i64 %size, %count
  %records = call noalias ptr @malloc(i64 %bytes)
  %none = icmp eq ptr %records, null
  br i1 %none, label %serial, label %start
start:
  %s = phi i64 [ 1, %reserve ], [ %s.next, %started ], [ 0, %last ]
  %record = getelementptr inbounds {_RECORD}, ptr %records, i64 %s
  %begin.grains = mul i64 %grains, %s
  %begin.grain = udiv i64 %begin.grains, %count
  %begin = mul i64 %begin.grain, %grain
  %s.next = add i64 %s, 1
  %end.grains = mul i64 %grains, %s.next
  %end.grain = udiv i64 %end.grains, %count
  %end.cut = mul i64 %end.grain, %grain
  %end = call i64 @llvm.smin.i64(i64 %end.cut, i64 %slices)
  store ptr %kernel, ptr %record, align 8
  %bases.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 1
  store ptr %bases, ptr %bases.place, align 8
  %parameters.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 2
  store ptr %parameters, ptr %parameters.place, align 8
  %begin.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 3
  store i64 %begin, ptr %begin.place, align 8
  %end.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 4
  store i64 %end, ptr %end.place, align 8
  %status.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 6
  store i32 0, ptr %status.place, align 8
  %started.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 7
  store i32 0, ptr %started.place, align 4
  %own = icmp eq i64 %s, 0
  br i1 %own, label %join, label %spawn
spawn:
  %thread.place = getelementptr inbounds {_RECORD}, ptr %record, i64 0, i32 8
  %refused = call i32 @pthread_create(ptr %thread.place, ptr null, ptr @einloom.run_slice, \
ptr %record)
  %runs = icmp eq i32 %refused, 0
  %runs.flag = zext i1 %runs to i32
  store i32 %runs.flag, ptr %started.place, align 4
  br label %started
started:
  %more = icmp slt i64 %s.next, %count
  br i1 %more, label %start, label %last
last:
  br label %start
join:
  %j = phi i64 [ 0, %start ], [ %j.next, %joined ]
  %result = phi i32 [ 0, %start ], [ %result.next, %joined ]
  %done = getelementptr inbounds {_RECORD}, ptr %records, i64 %j
  %done.started = getelementptr inbounds {_RECORD}, ptr %done, i64 0, i32 7
  %flag = load i32, ptr %done.started, align 4
  %elsewhere = icmp ne i32 %flag, 0
  br i1 %elsewhere, label %wait, label %work.here
wait:
  %done.thread = getelementptr inbounds {_RECORD}, ptr %done, i64 0, i32 8
  %thread = load i64, ptr %done.thread, align 8
  %ignored = call i32 @pthread_join(i64 %thread, ptr null)
  br label %joined
work.here:
  %nothing = call ptr @einloom.run_slice(ptr %done)
  br label %joined
joined:
  %done.status = getelementptr inbounds {_RECORD}, ptr %done, i64 0, i32 6
  %status = load i32, ptr %done.status, align 8
  %failed = icmp ne i32 %status, 0
  %before = icmp eq i32 %result, 0
  %first = and i1 %failed, %before
  %result.next = select i1 %first, i32 %status, i32 %result
  %own.fault = getelementptr inbounds {_RECORD}, ptr %done, i64 0, i32 5
  %source = select i1 %first, ptr %own.fault, ptr %fault
  %values = load <2 x i64>, ptr %source, align 8
  store <2 x i64> %values, ptr %fault, align 8
  %j.next = add i64 %j, 1
  %again = icmp slt i64 %j.next, %count
  br i1 %again, label %join, label %finish
finish:
  call void @free(ptr %records)
  ret i32 %result.next
}}"""
"""`i32 @einloom.launch(kernel, bases, parameters, slices, work, threads, fault)`.

The status of the lowest slice that failed, with its fault, or 0. The caller's own slice is the
first one. `fault` must be readable, set or not.
"""
