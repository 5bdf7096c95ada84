"""What runs inside a sandbox: the candidate, or the judge. Run as a script by `python -I -S`, so standard library only.

The judge holds the tests, the candidate holds the program, and they share no process, only two pipes: the judge sends
calls of the function, the candidate sends what they returned. Values cross as JSON, and the judge rebuilds them as
exact built-in types, so an object with an `__eq__` or a `__class__` of its own arrives as the plain data in it, or as
something that equals nothing.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import select
import sys
from collections.abc import Callable
from typing import Any

MAX_FRAME = 16 << 20
"""Bytes of one message; what a function returns may not be longer."""


REBUILT = {
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
}
"""Exceptions that the judge can raise again from a message alone."""


class Closed(Exception):
    """The other end of the channel is gone."""


class Oversized(Exception):
    """A message is longer than MAX_FRAME."""


class Malformed(Exception):
    """What came over the channel is no message: the program has written there itself."""


class CandidateError(Exception):
    """The candidate raised something that has no built-in exception class."""


class Foreign:
    """Stands in the judge for an object that is no plain data. Equal to nothing."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<object of type {self.type_name}>"


class Channel:
    """Messages over two pipes: eight bytes of length, then JSON in ASCII whose objects have one key each."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self.unread = select.poll()
        self.unread.register(read_fd, select.POLLIN)

    def ask(self, message: Any) -> Any:
        """Send a message and return the answer to it, which may not have been there before."""
        if any(event & select.POLLIN for _, event in self.unread.poll(0)):
            raise Malformed("an answer that nobody has asked for")
        self.send(message)
        return self.receive()

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        if len(data) > MAX_FRAME:
            raise Oversized(f"a value of {len(data)} bytes")
        rest = memoryview(len(data).to_bytes(8, "big") + data)
        try:
            while rest:
                rest = rest[os.write(self.write_fd, rest) :]
        except OSError as error:
            raise Closed from error

    def receive(self) -> Any:
        size = int.from_bytes(self._read(8), "big")
        if size > MAX_FRAME:
            raise Oversized(f"a value of {size} bytes")
        try:
            return json.loads(self._read(size).decode("ascii"), object_pairs_hook=_one_pair)
        except (ValueError, RecursionError) as error:
            raise Malformed(type(error).__name__) from error

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                chunk = os.read(self.read_fd, min(size - len(data), 1 << 20))
            except OSError as error:
                raise Closed from error
            if not chunk:
                raise Closed
            data += chunk
        return bytes(data)


def _one_pair(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    [(tag, data)] = pairs
    return {tag: data}


def encode(value: Any) -> Any:
    """A value as JSON: what equals plain data by Python's own rules goes as that data, subclasses as their base."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if issubclass(kind, int):
        value = int.__int__(value)
        return value if -(1 << 53) < value < 1 << 53 else {"int": hex(value)}
    if issubclass(kind, float):
        return float.__pos__(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, list):
        return [encode(item) for item in list.__iter__(value)]
    for base in (tuple, set, frozenset):
        if issubclass(kind, base):
            return {base.__name__: [encode(item) for item in base.__iter__(value)]}
    if issubclass(kind, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in dict.items(value)]}
    for raw in (bytes, bytearray):
        if issubclass(kind, raw):
            return {raw.__name__: raw.hex(value)}
    if issubclass(kind, complex):
        return {"complex": [complex.real.__get__(value), complex.imag.__get__(value)]}
    if kind is range:
        return {"range": [hex(value.start), hex(value.stop), hex(value.step)]}
    if kind is _imported("decimal", "Decimal"):
        return {"Decimal": str(value)}
    if kind is _imported("fractions", "Fraction"):
        return {"Fraction": [hex(value.numerator), hex(value.denominator)]}
    if hasattr(kind, "__iter__") and not isinstance(value, type):
        return {"iterator": [encode(item) for item in value]}
    return {"foreign": kind.__name__}


def _imported(module: str, name: str) -> Any:
    """A class of a module that the program has imported, so that its values can't be of it where it has not."""
    return getattr(sys.modules.get(module), name, None)


def decode(value: Any) -> Any:
    """Return the inverse of `encode`. May raise any exception for what `encode` can't have written."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    [(tag, data)] = value.items()
    return DECODERS[tag](data)


def _decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def _fraction(parts: list[str]) -> Any:
    from fractions import Fraction

    numerator, denominator = (int(part, 16) for part in parts)
    return Fraction(numerator, denominator)


def _foreign(type_name: str) -> Foreign:
    return Foreign(str.__getitem__(type_name, slice(100)))


DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda data: int(data, 16),
    "tuple": lambda data: tuple(map(decode, data)),
    "set": lambda data: set(map(decode, data)),
    "frozenset": lambda data: frozenset(map(decode, data)),
    "dict": lambda data: {decode(key): decode(item) for key, item in data},
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda data: complex(*data),
    "range": lambda data: range(*(int(bound, 16) for bound in data)),
    "Decimal": _decimal,
    "Fraction": _fraction,
    "iterator": lambda data: iter(decode(data)),
    "foreign": _foreign,
}


def describe(error: BaseException) -> list[str]:
    """Return the name of an exception's class, and its message cut to a length that can be logged."""
    try:
        message = str(error)
    except Exception:
        message = ""
    return [type(error).__name__, message[:500]]


def restrict(limits: dict[str, int], uid: int | None) -> None:
    """Give up root for good (the process limit does not bind root), then set the limits, soft and hard.

    Args:
        limits: By the names of the `resource` module's limits.
        uid: The user to become; None stays who it is.
    """
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    for name, value in limits.items():
        # The soft CPU limit ends a program by a signal that tells it apart, the hard one also where that is ignored.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        most = resource.getrlimit(getattr(resource, name))[1]
        if most != resource.RLIM_INFINITY:  # a lower limit that we ourselves are held to stays
            value, hard = min(value, most), min(hard, most)
        resource.setrlimit(getattr(resource, name), (value, hard))
    os.environ.clear()


def move(fd: int, replacement: int) -> int:
    """Move a standard stream to a descriptor of its own and put a copy of `replacement` in its place.

    Args:
        fd: The stream, 0, 1 or 2.
        replacement: A descriptor.
    """
    moved = os.dup(fd)
    os.dup2(replacement, fd)
    return moved


def candidate(alone: bool) -> None:
    """Run the program that the judge sends, then answer calls of its function until the judge says that it is done.

    alone: no other process should be visible, as in a process namespace.
    """
    null = os.open(os.devnull, os.O_RDWR)
    channel = Channel(move(0, null), move(1, 2))
    channel.send("started")
    program, entry_point = channel.receive()
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
    except BaseException as error:
        channel.send({"unreadable": describe(error)})
        return
    module = type(sys)("program")
    sys.modules["program"] = module
    try:
        exec(code, module.__dict__)
        function = module.__dict__[entry_point]
    except BaseException as error:
        channel.send({"raised": describe(error)})
        return
    channel.send({"ready": True})
    while (call := channel.receive()) != "done":
        args, kwargs = decode(call)
        try:
            channel.send({"returned": encode(function(*args, **kwargs))})
        except BaseException as error:
            channel.send({"raised": describe(error)})
    channel.send({"left": left_behind(alone)})


def left_behind(alone: bool) -> str:
    """Say what still runs beside the main thread; empty when nothing does."""
    if len(sys._current_frames()) > 1:
        return "a thread"
    try:
        while True:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                return "a process"
    except ChildProcessError:
        pass
    try:
        if alone:
            os.kill(-1, 0)
            return "a process"
    except ProcessLookupError:
        pass
    return ""


def _description(tag: str, data: Any, *tags: str) -> tuple[str, str]:
    """Return what `describe` wrote, under one of these tags."""
    match data:
        case [str(name), str(message)] if tag in tags:
            return name, message
    raise Malformed(tag)


class Judge:
    """Runs the tests; the function that they call lives in the candidate."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.raised: BaseException | None = None
        self.malformed: Malformed | None = None

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the candidate's function; what it raises is raised here too, as a built-in exception where it is one.

        Args:
            *args: The function's arguments.
            **kwargs: Those that are given by name.
        """
        message = encode((args, kwargs))
        try:
            return self._returned(*self._answer(message))
        except (Closed, Oversized):
            raise
        except Exception as error:
            if error is not self.raised:  # kept as well as raised, since a test may swallow it
                error = self.malformed = (
                    error if isinstance(error, Malformed) else Malformed(": ".join(describe(error)))
                )
            raise error from None

    def _answer(self, message: Any) -> tuple[str, Any]:
        """Ask, and take the one tag off the answer."""
        answer = self.channel.ask(message)
        if not isinstance(answer, dict):
            raise Malformed(f"{type(answer).__name__} without a tag")
        [(tag, data)] = answer.items()
        return tag, data

    def _returned(self, tag: str, data: Any) -> Any:
        """Return what the function returned; raise what it raised."""
        if tag == "returned":
            return decode(data)
        name, message = _description(tag, data, "raised")
        kind = getattr(builtins, name, None)
        self.raised = kind(message) if kind in REBUILT else CandidateError(f"{name}: {message}")
        raise self.raised

    def verdict(self, job: dict[str, str]) -> tuple[str, str]:
        """Return the reason and its detail, or `("gone", "")` where only the candidate's exit status can tell."""
        reason, detail = self._first_verdict(job)
        if self.malformed:
            return "exception", f"the program broke into the channel of its answers: {self.malformed}"
        return reason, detail

    def _first_verdict(self, job: dict[str, str]) -> tuple[str, str]:
        """The verdict as it is unless a malformed answer was among those that led to it."""
        try:
            return self._verdict(job)
        except Closed:
            return "gone", ""
        except Malformed as error:
            self.malformed = self.malformed or error
            return "exception", ""
        except BaseException as error:
            name, message = describe(error)
            if error is self.raised:
                return ("killed" if name == "MemoryError" else "exception"), message or name
            return "wrong answer", message if name == "AssertionError" else f"{name}: {message}"

    def _verdict(self, job: dict[str, str]) -> tuple[str, str]:
        namespace: dict[str, Any] = {"__name__": "judge"}
        try:
            exec(compile(job["setup"], "<setup>", "exec", dont_inherit=True), namespace)
            namespace[job["entry_point"]] = self.call
            exec(compile(job["test"], "<test>", "exec", dont_inherit=True), namespace)
            check = namespace["check"]
        except BaseException as error:
            return "broken test", ": ".join(describe(error))
        tag, data = self._answer([job["program"], job["entry_point"]])
        if tag != "ready":
            name, message = _description(tag, data, "unreadable", "raised")
            reason = "killed" if name == "MemoryError" else "exception"
            return "syntax error" if tag == "unreadable" else reason, f"{name}: {message}"
        check(self.call)
        _, left = self._answer("done")
        return ("killed", f"left {left} running") if left else self._end()

    def _end(self) -> tuple[str, str]:
        """The verdict on a program that has passed so far: it leaves now, without another word."""
        try:
            self.channel.receive()
        except Closed:
            return "passed", ""
        raise Malformed("an answer after the last")


def judge(requests: int, answers: int) -> None:
    """Read the job from stdin and write to stdout, first that both ends have started, then the verdict.

    Args:
        requests: The descriptor to which calls are written.
        answers: The descriptor from which their answers are read.
    """
    job = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDWR)
    verdict = move(1, null)
    channel = Channel(answers, requests)
    try:
        channel.receive()
    except Closed:
        return
    os.write(verdict, b"started\n")
    os.write(verdict, json.dumps(Judge(channel).verdict(job)).encode() + b"\n")


def main() -> None:
    """Take the role and its settings from the command line, as JSON, and leave without running the program's hooks."""
    role = json.loads(sys.argv[1])
    restrict(role["limits"], role["uid"])
    if role["name"] == "judge":
        judge(role["requests"], role["answers"])
    else:
        candidate(role["alone"])
    os._exit(0)


if __name__ == "__main__":
    main()
