"""Calls every kind of method of weft.tests.Echo with grpcio; messages are packed by hand, so no protoc is needed."""

import sys

import grpc

SERVICE = "/weft.tests.Echo/"
DEADLINE = 20


def pack(text, times=0, fail=0):
    """Words: 1 text, 2 times, 3 fail; short values only."""
    raw = text.encode()
    message = b"\x0a" + bytes([len(raw)]) + raw
    for tag, value in ((0x10, times), (0x18, fail)):
        if value:
            message += bytes([tag, value])
    return message


def text_of(message):
    assert message[0] == 0x0A, message
    return message[2 : 2 + message[1]].decode()


def main(address):
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=DEADLINE)

        say = channel.unary_unary(SERVICE + "Say")
        answer, call = say.with_call(pack("hello"), timeout=DEADLINE, metadata=[("x-say", "hi")])
        assert text_of(answer) == "hello"
        assert ("x-said", "hi") in call.initial_metadata(), call.initial_metadata()
        print("unary", end=" ")

        repeat = channel.unary_stream(SERVICE + "Repeat")
        answers = [text_of(answer) for answer in repeat(pack("again", times=100), timeout=DEADLINE)]
        assert answers == ["again"] * 100, answers
        print("repeat", end=" ")

        collect = channel.stream_unary(SERVICE + "Collect")
        answer = collect(iter([pack("a"), pack("b"), pack("c")]), timeout=DEADLINE)
        assert text_of(answer) == "abc"
        print("collect", end=" ")

        chat = channel.stream_stream(SERVICE + "Chat")
        lines = ["line %d" % number for number in range(20)]
        answers = [text_of(answer) for answer in chat(map(pack, lines), timeout=DEADLINE)]
        assert answers == lines, answers
        print("chat", end=" ")

        stream = repeat(pack("three", times=3, fail=10), timeout=DEADLINE)
        try:
            got = [next(stream) for _ in range(3)]
            next(stream)
            raise AssertionError("no status")
        except grpc.RpcError as error:
            assert len(got) == 3
            assert error.code() == grpc.StatusCode.ABORTED, error.code()
            assert error.details() == "said: three", error.details()
            assert ("x-why", "asked to") in error.trailing_metadata(), error.trailing_metadata()
        print("status")


main(sys.argv[1])
