"""Messages of the awkward kinds that a Maildir can hold, made from real ones.

`KINDS` maps a kind's name to a function (random, samples) -> list of octets: one message, or several that belong in one folder.
"""

import re

CHUNK = 65536  # the replication protocol sends items in pieces of at most this many octets


def split(octets: bytes):
    """(header without its last line end, body) of a sample."""
    head, _, body = octets.partition(b"\n\n")
    return head, body


def simple(random, subject: str, body: bytes, extra: bytes = b"") -> bytes:
    """A small message of our own."""
    return (b"From: sender@fabrikam.example\nTo: accounts@contoso.example\nSubject: " + subject.encode()
            + b"\nMessage-ID: <%032x@contoso.example>\n" % random.getrandbits(128) + extra + b"\n" + body)


def eight_bit_header(random, samples):
    """Latin-1 and UTF-8 octets without any encoding in the header, as old mail programs wrote them."""
    head, body = split(random.choice(samples))
    name = random.choice(["Günther Größe".encode("latin-1"), "Zoë Łuć".encode(), "中文".encode("gb2312"), b"\xff\xfe\x80"])
    return [b"X-Old-Name: " + name + b"\n" + head + b"\n\n" + body]


def no_message_id(random, samples):
    head, body = split(random.choice(samples))
    return [re.sub(rb"(?im)^message-id:.*\n(?:[ \t].*\n)*", b"", head + b"\n") + b"\n" + body]


def same_message_id(random, samples):
    """Two different messages that carry one Message-ID."""
    first = simple(random, "agenda", b"Version one.\n")
    return [first, first.replace(b"Version one.", b"Version two, with another ending.")]


def identical(random, samples):
    """The same octets two or three times."""
    return [random.choice(samples)] * random.choice([2, 3])


def headers_only(random, samples):
    """Header lines and nothing else, not even the blank line."""
    return [split(random.choice(samples))[0] + b"\n"]


def body_only(random, samples):
    """Text without a header; its first line is no field."""
    return [b"\nthis text has no header at all %d\n" % random.getrandbits(60) + split(random.choice(samples))[1]]


def mixed_line_ends(random, samples):
    lines = random.choice(samples).split(b"\n")
    return [b"".join(line + random.choice([b"\n", b"\r\n"]) for line in lines)]


def all_crlf(random, samples):
    return [random.choice(samples).replace(b"\r", b"").replace(b"\n", b"\r\n")]


def cr_cr_lf(random, samples):
    return [random.choice(samples).replace(b"\n", random.choice([b"\r\r\n", b"\r\r\r\n"]))]


def lone_cr(random, samples):
    return [simple(random, "stray carriage returns", b"one\rtwo\r\rthree\n\rfour\r \n%d\n" % random.getrandbits(60))]


def cr_at_the_end(random, samples):
    return [random.choice(samples).rstrip(b"\n") + random.choice([b"\r", b"\r\r", b"\n\r", b"\n\r\r\r"])]


def nul_in_body(random, samples):
    return [simple(random, "zero octets", b"before\0after\0\0\n%d\0" % random.getrandbits(60))]


def nul_in_header(random, samples):
    return [simple(random, "zero in the header", b"text\n", b"X-Broken: a\0b%d\n" % random.getrandbits(60))]


def no_final_newline(random, samples):
    return [random.choice(samples).rstrip(b"\r\n") + b" %d" % random.getrandbits(60)]


def long_lines(random, samples):
    """One line longer than a chunk, and some over SMTP's 998 octets."""
    line = b"".join(b"%d," % random.getrandbits(30) for _ in range(random.choice([150, 1200, 12000])))
    return [simple(random, "a spreadsheet in one line", line + b"\n" + line[:1500] + b"\n")]


def from_line(random, samples):
    """An mbox separator that stayed in the message."""
    start = random.choice([b"From ", b">From "])
    return [start + b"sender@fabrikam.example  Thu Aug 22 12:36:23 2002\n" + random.choice(samples)]


def empty(random, samples):
    """A file of zero octets, as a full disk leaves behind."""
    return [b""]


def control_z(random, samples):
    return [simple(random, "end of file of another age", b"text\x1amore %d\n\x1a" % random.getrandbits(60))]


def deep_mime(random, samples):
    """Forty multiparts in each other."""
    depth = 40
    part = b"Content-Type: text/plain\n\ninnermost %d\n" % random.getrandbits(60)
    for level in range(depth):
        mark = b"level-%d" % level
        part = (b'Content-Type: multipart/mixed; boundary="' + mark + b'"\n\n--' + mark + b"\n" + part + b"\n--" + mark + b"--\n")
    return [b"MIME-Version: 1.0\nSubject: nested\nMessage-ID: <%032x@contoso.example>\n" % random.getrandbits(128) + part]


def broken_boundary(random, samples):
    """A multipart whose boundary never comes, and one that never closes."""
    return [simple(random, "broken parts", b"--other\nContent-Type: text/html\n\n<p>%d\n--mark\n\n--mar" % random.getrandbits(60),
                   b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="mark"\n')]


def every_octet(random, samples):
    octets = list(range(256)) * 4
    random.shuffle(octets)
    return [simple(random, "binary", bytes(octets), b"Content-Transfer-Encoding: binary\n")]


def chunk_edge(random, samples):
    """Its canonical form has a line end, or a stray CR, exactly where one chunk ends and the next begins."""
    head = simple(random, "on the edge", b"")
    canonical_head = len(head) + head.count(b"\n")
    fill = CHUNK - canonical_head - random.choice([0, 1, 2])
    return [head + b"x" * fill + random.choice([b"\n", b"\r\n", b"\r\r\n", b"\ry"]) + b"after the edge\n"]


def exactly_one_chunk(random, samples):
    head = simple(random, "one whole chunk", b"")
    return [head + b"y" * (CHUNK - len(head) - head.count(b"\n"))]


def large(random, samples):
    """A few hundred kilobytes of attachment, as real mailboxes have and this corpus has not."""
    lines = (b"%0.76x\n" % random.getrandbits(304) for _ in range(random.randrange(4000, 12000)))
    return [simple(random, "scanned contract", b"".join(lines), b"Content-Type: application/octet-stream\n")]


def blank_first(random, samples):
    """Blank lines before anything else: the header is empty."""
    return [b"\n\n" + random.choice(samples)]


def only_line_ends(random, samples):
    return [random.choice([b"\n", b"\r\n\n", b"\n\r\r\n\n"])]


def byte_order_mark(random, samples):
    return [b"\xef\xbb\xbf" + random.choice(samples)]


KINDS = {function.__name__.replace("_", "-"): function for function in (
    eight_bit_header, no_message_id, same_message_id, identical, headers_only, body_only, mixed_line_ends, all_crlf,
    cr_cr_lf, lone_cr, cr_at_the_end, nul_in_body, nul_in_header, no_final_newline, long_lines, from_line, empty,
    control_z, deep_mime, broken_boundary, every_octet, chunk_edge, exactly_one_chunk, large, blank_first, only_line_ends,
    byte_order_mark)}
