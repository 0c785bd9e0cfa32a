#!/bin/bash
# A node of a cluster as a machine of its own, on a node of hack/vm:
#   machine.sh DIR ADDRESS GATEWAY CRISP KUBERNETES REQUESTS
# It gives the machine all that `crisp cluster` gives a container: DIR is the node's directory in its
# cluster, which it sees as /node; CRISP and KUBERNETES are directories of programs. Then it runs the
# scripts that come as REQUESTS/N.sh, one after another: their words go to N.out, their ends to N.end.
set -u
dir=$1 address=$2 gateway=$3 crisp=$4 kubernetes=$5 requests=$6
clock=/opt/cpuinfo

# Files of this machine's host, as they are at each moment.
share() { mkdir -p "$2" && mount -t hostfs -o "$1" none "$2"; }

prepare() {
    set -e
    ip addr add "$address" dev eth0
    ip link set eth0 up
    ip route add default via "$gateway"
    echo 1 >/proc/sys/net/ipv4/ip_forward
    share "$dir" /node
    share "$dir/log" /var/log
    # A tmpfs carries state: the machine's own root cannot hold an overlay's upper directory.
    mount -t tmpfs state /var/lib
    cp -a "$dir/var/." /var/lib/
    mkdir -p /opt/crisp /opt/kubernetes
    mount --bind "$crisp" /opt/crisp
    mount --bind "$kubernetes" /opt/kubernetes
    for file in machine-id resolv.conf; do mount --bind "/node/$file" "/etc/$file"; done
    # A kubelet starts nowhere without a clock speed, and user-mode Linux tells none.
    { cat /proc/cpuinfo && printf 'cpu MHz\t\t: 1000.000\n'; } >$clock
    set +e
}

# The first process of a node is the first of its PID namespace, as it is in a container.
start_node() {
    unshare --fork --pid --mount --mount-proc /bin/bash -c \
        "mount --bind $clock /proc/cpuinfo && exec /opt/crisp/crisp cluster init /node/init.json" \
        >>/var/log/machine.log 2>&1 </dev/null &
}

share "$requests" /run/requests
(prepare) || exit
number=1
until [ -e /run/requests/off ]; do
    request=/run/requests/$number
    if [ -e "$request.sh" ]; then
        # Here, so that functions that it brings are known to the next one.
        . "$request.sh" >"$request.out" 2>&1 </dev/null
        echo $? >"$request.part"
        mv "$request.part" "$request.end"
        number=$((number + 1))
    else
        sleep 0.1
    fi
done
