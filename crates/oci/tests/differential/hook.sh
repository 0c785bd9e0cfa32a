#!/bin/sh
# Notes what a hook sees, beside the root file system or, inside a container, in it: hook STAGE [EXIT]
log=/hooks.log
case $0 in */rootfs/hook) log=${0%/rootfs/hook}/hooks.log ;; esac
{
    echo "== order"
    echo "$1"
    echo "== $1 state"
    tr ',{}' '\n\n\n' | sed 's/"pid": *[1-9][0-9]*/"pid":some/; s/^ *//; s/": */":/; /^$/d' | sort
    echo "== $1 process"
    pwd -P
    umask
    id
    env | grep -vE '^(PWD|OLDPWD|SHLVL|_|R)=' | sort
    echo "== $1 namespaces"
    for name in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$name; done
    echo "== $1 points"
    awk '{ print $5 }' /proc/self/mountinfo | grep -E "rootfs|^/(proc|dev|sys|volume)" | sort
} >>"$log" 2>&1
[ "$3" ] && echo "$3" >&2
exit "${2:-0}"
