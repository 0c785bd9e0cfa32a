"""Sends one forged frame out of eth0, then an honest ARP request from a MAC that marks the end."""
import os, socket, struct, sys

kind, marker, mac, own4, victim_mac, victim4, victim6, his4, his6, his_link_local = sys.argv[1:]


def octets(text):
    return bytes(int(octet, 16) for octet in text.split(":"))


def v4(text):
    return socket.inet_aton(text)


def v6(text):
    return socket.inet_pton(socket.AF_INET6, text)


def frame(kind, payload, tags=0):
    tag = struct.pack("!HH", 0x8100, 0) * tags
    return octets(victim_mac) + octets(mac) + tag + struct.pack("!H", kind) + payload


def arp(operation, sender, claimed=mac, target=None):
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + octets(claimed) + v4(sender) + octets(victim_mac) + v4(target or victim4)


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def neighbour(icmp_type, source, target, option, options_ahead=False):
    flags = 0x20000000 if icmp_type == 136 else 0
    body = struct.pack("!BBHI", icmp_type, 0, 0, flags) + v6(target)
    body += bytes([option, 1]) + octets(mac)
    pseudo = v6(source) + v6(victim6) + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    ahead = bytes([58, 0, 1, 4, 0, 0, 0, 0]) if options_ahead else b""
    head = struct.pack("!IHBB", 6 << 28, len(ahead) + len(body), 60 if ahead else 58, 255)
    return head + v6(source) + v6(victim6) + ahead + body


def datagram():
    udp = struct.pack("!HHHH", 9, 4000, 12, 0) + b"evil"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    addresses = v4(his4) + v4(victim4)
    head = head[:10] + struct.pack("!H", checksum(head + addresses)) + addresses
    return head + udp


frames = {
    "reply": lambda: frame(0x0806, arp(2, his4)),
    "request": lambda: frame(0x0806, arp(1, his4)),
    "gratuitous": lambda: frame(0x0806, arp(1, his4, target=his4)),
    "tagged": lambda: frame(0x0806, arp(2, his4), 1),
    "tagged twice": lambda: frame(0x0806, arp(2, his4), 2),
    "advertisement": lambda: frame(0x86DD, neighbour(136, his6, his6, 2)),
    "options ahead": lambda: frame(0x86DD, neighbour(136, own6, his6, 2, True)),
    "tagged advertisement": lambda: frame(0x86DD, neighbour(136, own6, his6, 2), 1),
    "solicitation": lambda: frame(0x86DD, neighbour(135, his6, victim6, 1)),
    "link-local": lambda: frame(0x86DD, neighbour(135, his_link_local, victim6, 1)),
    "datagram": lambda: frame(0x0800, datagram()),
}
# A link-local address of its own that nobody has.
own6 = "fe80::77"
# All frames go through one queue, in order.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
out.send(frames[kind]())
out.send(frame(0x0806, arp(1, own4, claimed=marker)))
