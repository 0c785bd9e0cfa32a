# Makes a machine of machine.sh that systemd runs a node as kubeadm makes them: programs, units and settings
# are where they usually are.

# The machine has these programs. DIR/etc is what it has in its own /etc.
become_node() (
    set -e
    for program in "$@"; do ln -sf "$program" /usr/local/bin/; done
    # The host of the machine may be such a node itself.
    for place in cni containerd crisp kubernetes; do
        mkdir -p /etc/$place
        mount -t tmpfs settings /etc/$place
    done
    cp -r /node/etc/. /etc/
    mount --bind $clock /proc/cpuinfo
    nft -f /node/firewall.nft
    ip -batch /node/routes
    systemctl daemon-reload
    systemctl enable --now containerd kube-proxy
)

# Everything that pods have on the machine, a line each: its kind and its name.
things_of_pods() {
    find /sys/fs/cgroup/kubepods.slice -name '*.scope' -printf 'cgroup %p\n'
    awk '$5 ~ "^/(run|var/lib)/(containerd|crisp)/" { print "mount", $5 }' /proc/self/mountinfo
    find /run/netns -mindepth 1 -printf 'network %p\n'
    addresses | sed 's/^/address /'
    ip -o link show type veth | sed 's/^/link /'
    pgrep --list-name 'containerd-shim|crisp-shim' | sed 's/^/shim /'
    systemctl list-units --failed --plain --no-legend 'cri-containerd-*' 'crisp-*' | sed 's/^/failed /'
} 2>/dev/null

# Files of the plugin that gives addresses, one for each.
addresses() { find /var/lib/cni/networks -name '[0-9]*'; }

# The cgroups of pods, by their names.
slices() { find /sys/fs/cgroup/kubepods.slice -name 'kubepods*-pod*.slice' -printf '%f\n'; }
