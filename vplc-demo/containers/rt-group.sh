#!/bin/sh
# An OCI hook (createRuntime) for kernels that divide real-time among the groups of the cpu
# controller (RT_GROUP_SCHED): no thread of a group without a share may have a priority,
# whoever asks. It moves the container's process, which has not started yet, to the group
# that has the machine's share. On other kernels it does nothing.
set -eu
state=$(cat)
pid=$(printf '%s' "$state" | sed -n 's/.*"pid"[[:space:]]*:[[:space:]]*\([0-9][0-9]*\).*/\1/p')
for group in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpu,cpuacct; do
    if [ -e "$group/cpu.rt_runtime_us" ]; then
        echo "$pid" > "$group/cgroup.procs"
        exit 0
    fi
done
