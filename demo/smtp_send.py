"""Sends one message over SMTP exactly as it is, and tries again while the server says "later" (4xx) or is not there.

    python3 demo/smtp_send.py --server HOST:PORT --from ADDRESS --to ADDRESS FILE
"""

import argparse
import smtplib
import sys
import time

import maildir

PAUSE = 0.5


def send_once(server: str, sender: str, recipient: str, message: bytes):
    """One SMTP transaction. smtplib sends octets as they are when they are given as bytes with CR LF at every line end."""
    host, _, port = server.rpartition(":")
    with smtplib.SMTP(host, int(port), local_hostname="demo.invalid", timeout=30) as connection:
        connection.ehlo()
        options = ["BODY=8BITMIME"] if connection.has_extn("8bitmime") else []
        connection.sendmail(sender, [recipient], message, mail_options=options)


def is_temporary(error: Exception) -> bool:
    """Whether trying again can help: 4xx, or no (whole) conversation at all."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(400 <= code < 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return 400 <= error.smtp_code < 500
    return isinstance(error, OSError)  # also smtplib's own "server disconnected"


def send(server: str, sender: str, recipient: str, message: bytes, patience: float = 30) -> int:
    """Sends, trying again for `patience` seconds; returns how often the server said "later". Raises the last error."""
    deadline, deferred = time.monotonic() + patience, 0
    while True:
        try:
            send_once(server, sender, recipient, maildir.canonical(message))
            return deferred
        except (smtplib.SMTPException, OSError) as error:
            if not is_temporary(error) or time.monotonic() > deadline:
                raise
            deferred += 1
            time.sleep(PAUSE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--from", dest="sender", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("file")
    arguments = parser.parse_args()
    with open(arguments.file, "rb") as file:
        send(arguments.server, arguments.sender, arguments.to, file.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
