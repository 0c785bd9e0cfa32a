#!/bin/sh
# Prints what a process in a container sees, in sections. Nothing here differs from one container
# to the next of the same kind: no pids, no inodes, no times.
section() { echo "== $1"; }

section arguments
tr '\0' '\n' </proc/$$/cmdline
section environment
tr '\0' '\n' </proc/$$/environ
section directory
readlink /proc/$$/cwd
section identity
id
umask
section status
grep -E '^(Umask|Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap|Sig(Ign|Blk)|Cpus_allowed_list|Mems_allowed_list|CoreDumping|THP|Speculation)' /proc/self/status
section limits
sed 's/  */ /g' /proc/self/limits
section attributes
cat /proc/self/oom_score_adj /proc/self/personality /proc/self/timerslack_ns /proc/self/coredump_filter /proc/self/setgroups
cat /proc/self/attr/current 2>&1
# ppid, group, session, nice, real-time priority, policy of pid 1 or of an exec's own process
sed 's/.*) //' /proc/$$/stat | awk '{ print "nice", $17, "rt", $38, "policy", $39, "leads", ($3 == $4), "terminal", ($5 != 0) }'
ionice -p $$ 2>&1
section maps
cat /proc/self/uid_map /proc/self/gid_map
section cgroup
cat /proc/self/cgroup
section namespaces
for name in cgroup ipc mnt net pid user uts time; do readlink /proc/self/ns/$name; done
section mounts
cat /proc/self/mountinfo
section descriptors
for number in 0 1 2 3 4 5; do
    [ -e /proc/$$/fd/$number ] && echo "$number $(readlink /proc/$$/fd/$number)"
done
section nodes
find /dev /volume -xdev 2>/dev/null | grep -v '^/dev/pts/[0-9]' | sort | while read -r path; do
    stat -c '%n %F %a %u:%g %t:%T' "$path"
    if [ -L "$path" ]; then readlink "$path"; fi
done
section tree
stat -c '%n %F %a %u:%g' / /proc /sys /dev/pts /dev/shm /dev/mqueue /etc /tmp /sys/fs/cgroup 2>&1
ls /sys/fs/cgroup /sys 2>/dev/null | sort
section uts
hostname
cat /proc/sys/kernel/domainname
section sysctls
for name in kernel/shmmax kernel/shmall kernel/msgmax kernel/sem kernel/shm_rmid_forced fs/mqueue/msg_max \
    net/ipv4/ip_forward net/ipv4/ping_group_range net/ipv4/ip_unprivileged_port_start net/core/somaxconn; do
    [ -e /proc/sys/$name ] && echo "$name $(cat /proc/sys/$name)"
done
section network
ls /sys/class/net 2>/dev/null
sed 's/ .*//' /proc/net/dev | sort
ip -o link 2>/dev/null | sed 's/^[0-9]*: //; s/ link.*//'
section attempts
attempt() { if eval "$1" 2>/dev/null >/dev/null </dev/null; then echo "can: $1"; else echo "cannot: $1"; fi; }
for node in null zero full random urandom tty console ptmx fuse; do
    attempt "true </dev/$node"
done
attempt 'echo >/dev/null'
attempt 'head -c 1 /dev/zero'
attempt 'head -c 1 /dev/urandom'
attempt 'echo >/dev/full'
attempt 'mknod /tmp/memory c 1 1 && true </tmp/memory'
attempt 'mknod /tmp/disk b 254 0'
attempt 'echo >/file'
attempt 'echo >/etc/file'
attempt 'echo >/tmp/file'
attempt 'chmod 666 /dev/null'
attempt 'chown 0 /etc'
attempt 'echo 1 >/proc/sys/net/ipv4/ip_forward'
attempt 'cat /proc/kcore | head -c 1 | grep -q .'
attempt 'ls /proc/scsi/scsi'
attempt 'ls /sys/firmware/*'
attempt 'cat /proc/keys | grep -q .'
attempt 'mount -t tmpfs tmpfs /tmp'
attempt 'umount /proc/sys'
attempt 'hostname other'
attempt 'mkdir /sys/fs/cgroup/pids/probe && rmdir /sys/fs/cgroup/pids/probe'
attempt 'mkdir /sys/fs/cgroup/probe && rmdir /sys/fs/cgroup/probe'
attempt 'unshare -U true'
attempt 'unshare -n true'
attempt 'nice -n -1 true'
attempt 'ping -c 1 -W 1 127.0.0.1'
attempt 'chroot / /bin/true'
for path in "$@"; do
    section "path $path"
    ls -ldn "$path" 2>&1 | awk '{ print $1, $3, $4 }'
    cat "$path" 2>&1 | head -n 20
done
section end
