"""Mail that arrives while a mailbox moves: each message is sent until a server takes it."""

import smtplib
import threading
import time
import uuid

SENDER = "sender@elsewhere.example"
PAUSE = 0.15


class Letters:
    """Senders in threads of their own. `letters`: marker, octets, when it was sent, conversations that broke off before the last
    answer (after each the server may have the message or not, and it is sent again)."""

    def __init__(self, patience: float):
        self.patience, self.letters, self.threads, self.failures = patience, [], [], []
        self.ended, self.stopped = threading.Event(), threading.Event()

    def letter(self, when: str) -> dict:
        marker = uuid.uuid4().hex
        text = f"Subject: {when}\r\nFrom: {SENDER}\r\nMessage-ID: <{marker}@elsewhere.example>\r\n\r\nHello.\r\n"
        octets = b"Demo-Marker: " + marker.encode() + b"\r\n" + text.encode()
        letter = {"marker": marker, "octets": octets, "when": when, "unknown": 0, "deferred": 0}
        self.letters.append(letter)
        return letter

    def try_once(self, letter: dict, port: int, recipient: str) -> bool:
        """Whether a server has taken it."""
        try:
            connection = smtplib.SMTP("127.0.0.1", port, local_hostname="elsewhere.example", timeout=20)
        except (OSError, smtplib.SMTPException):
            return False
        try:
            connection.ehlo()
            for code, text in (connection.mail(SENDER), connection.rcpt(recipient)):
                if code >= 400:
                    return self.later(letter, code, text)
            letter["unknown"] += 1
            code, text = connection.data(letter["octets"])
            letter["unknown"] -= 1
            return True if code < 400 else self.later(letter, code, text)
        except smtplib.SMTPDataError as error:
            letter["unknown"] -= 1
            return self.later(letter, error.smtp_code, error.smtp_error)
        except (OSError, smtplib.SMTPException):
            return False
        finally:
            connection.close()

    def later(self, letter: dict, code: int, text: bytes) -> bool:
        if code >= 500:
            raise ValueError(f"{letter['when']}: refused for good: {code} {text!r}")
        letter["deferred"] += 1
        return False

    def deliver(self, when: str, port: int, recipient: str):
        letter, deadline = self.letter(when), time.monotonic() + self.patience
        while not self.try_once(letter, port, recipient):
            if time.monotonic() > deadline or self.stopped.is_set():
                raise ValueError(f"{when}: no server took it; deferred {letter['deferred']} times")
            time.sleep(PAUSE)

    def guarded(self, work):
        def run():
            try:
                work()
            except ValueError as error:
                self.failures.append(str(error))
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def send(self, when: str, port: int, recipient: str):
        """Sends one message beside everything else."""
        self.guarded(lambda: self.deliver(when, port, recipient))

    def send_all_the_while(self, when: str, port: int, recipient: str, pause: float):
        """Sends one message after the other until `end`."""
        def work():
            while not self.ended.is_set() and not self.stopped.is_set():
                self.deliver(when, port, recipient)
                self.ended.wait(pause)
        self.guarded(work)

    def end(self):
        """No further messages."""
        self.ended.set()

    def are_taken(self) -> bool:
        """Whether each that was begun has been taken, or has failed."""
        return not any(thread.is_alive() for thread in self.threads)

    def stop(self):
        """Gives up."""
        self.ended.set()
        self.stopped.set()
