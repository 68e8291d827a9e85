#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""A name server on 127.0.0.1 that answers after 150 ms, with 127.0.0.1 for every name."""
import socket
import struct
import threading

DELAY = 0.15
A = 1  # the type of a query for an IPv4 address (RFC 1035)


def answer(query):
    """The query's question and, for type A, one record: a pointer to the name, type, class, TTL, address."""
    end = query.index(b"\0", 12) + 5
    found = query[end - 4:end - 2] == struct.pack(">H", A)
    header = query[:2] + struct.pack(">5H", 0x8180, 1, int(found), 0, 0)
    record = struct.pack(">3HIH4B", 0xC00C, A, 1, 0, 4, 127, 0, 0, 1) if found else b""
    return header + query[12:end] + record


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        query, peer = server.recvfrom(512)
        try:
            reply = answer(query)
        except (ValueError, struct.error):
            continue  # not a query
        threading.Timer(DELAY, server.sendto, (reply, peer)).start()


main()
