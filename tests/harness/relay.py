"""A long cable between two network devices: every frame comes out at the other end after a fixed time.

Arguments: the two devices, milliseconds. Frames pass as the kernel has them (with their offload header), so that unfinished
checksums and large segments stay what they are.
"""
import collections
import select
import socket
import sys
import time

ETH_P_ALL, SOL_PACKET, PACKET_IGNORE_OUTGOING, PACKET_VNET_HDR = 3, 263, 23, 15


def end(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.bind((device, ETH_P_ALL))
    sock.setblocking(False)
    return sock


def main():
    ends, delay = [end(device) for device in sys.argv[1:3]], float(sys.argv[3]) / 1000
    queue = collections.deque()
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        for sock in select.select(ends, [], [], wait)[0]:
            try:
                frame = sock.recv(1 << 17)
            except BlockingIOError:
                continue
            queue.append((time.monotonic() + delay, ends[1] if sock is ends[0] else ends[0], frame))
        while queue and queue[0][0] <= time.monotonic():
            _, to, frame = queue.popleft()
            try:
                to.send(frame)
            except OSError:
                pass  # A full queue drops, as a cable's would.


main()
