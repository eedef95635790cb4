"""What holds for every file and every way in which its bytes can come."""

from __future__ import annotations

import bz2
import gzip
import random
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from itertools import count, pairwise

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crawler.errors import FormatError
from crawler.fits.compression import Decompressor
from crawler.fits.layouts import Guess
from crawler.fits.policy import ReadPolicy
from crawler.fits.units import Hdu, Span
from crawler.fits.walker import EndOfFile, HeaderWalker, Limits
from crawler.job.scope import Scope
from crawler.worker.file_walk import Answers, Reads
from crawler.worker.tables import tables_of
from crawler.worker.walk import FileResult, walk_file, walk_steps
from tests.fits_files import (
    BLOCK,
    CARD,
    BytesStore,
    Walked,
    bintable_hdu,
    card,
    entry,
    groups_hdu,
    header,
    image_hdu,
    walk_bytes,
)

deterministic = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

LIMITS = Limits(header_bytes=4 * BLOCK, file_bytes=8 * BLOCK)
"""Small, so that small files reach them."""

# Cards that change what a header means, or look as if they did.
CARDS = [
    "END", b"END\0", "ENDTIME = 1", "COMMENT END", "KEY     = 'END     '", "NAXIS   = 0", "NAXIS   = 1", "NAXIS   = 2",
    "NAXIS   = -1", "NAXIS   = 999", "NAXIS1  = 100", "NAXIS1  = 0", "NAXIS1  = -3", "NAXIS1  = 1 0", "NAXIS1  = x",
    "NAXIS2  = 60", f"NAXIS2  = {2**62}", f"NAXIS2  = {2**70}", "BITPIX  = 16", "BITPIX  = -64", "BITPIX  = 0",
    "PCOUNT  = 5000", "PCOUNT  = -1", "GCOUNT  = 3", "GROUPS  = T", "naxis1  = 7", "SIMPLE  = F", "XTENSION= 'IMAGE'",
    "", "\0" * 80, "\xff" * 80, "SIMPLE  = T", "CONTINUE  'x'",
    "END= 1", "END/ c", "END\n", "END     x", "END x", "PCOUNT= 5", "NAXIS1  =5", " NAXIS1 = 5", "NAXIS1 = 5",
    "PCOUNT    7", "Naxis   = 1", "GCOUNT  = 1 x", "GCOUNT  =", "COMMENT caf\xe9", f"NAXIS   = {'9' * 60}",
    f"EXTVER  = {'9' * 70}",
    f"REAL    = 1E{'9' * 60}", "EXTNAME = '\xb5'", f"LONG    = '{'9' * 66}&'", f"CONTINUE  '{'9' * 66}&'",
    "EXTVER  = 1E5",
]  # fmt: skip

cards = st.lists(st.sampled_from(CARDS), max_size=50)
hdus = st.one_of(
    st.builds(image_hdu, st.sampled_from([(), (0,), (1,), (2880,), (50, 70)])),
    st.builds(lambda extra: image_hdu((), *extra), cards),
    st.builds(lambda extra: image_hdu((), *extra, xtension="IMAGE"), cards),
    st.builds(image_hdu, st.sampled_from([(), (5,), (50, 70)]), xtension=st.sampled_from(["IMAGE", "FOREIGN"])),
    st.builds(bintable_hdu, st.integers(0, 100), st.integers(0, 50), heap=st.integers(0, 3000)),
    st.just(groups_hdu((4, 2), bitpix=-32, pcount=3, gcount=20)),
    st.just(header(entry("SIMPLE", True), end=None)),
    st.builds(lambda count: image_hdu((), *["COMMENT"] * count), st.integers(0, 200)),
)
tails = st.one_of(st.just(b""), st.binary(max_size=200), st.just(bytes(BLOCK)), st.just(b"XTENSION"))


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw a file with some of its bits flipped, cards inserted, pieces cut out, or its end missing."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "insert", "delete", "truncate"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                at -= at % CARD
                data[at:at] = card(draw(st.sampled_from(CARDS)))
            case "delete":
                del data[at : at + draw(st.sampled_from([1, CARD, BLOCK]))]
            case "truncate":
                del data[at:]
    return bytes(data)


good = st.builds(
    lambda first, rest, tail: first + b"".join(rest) + tail,
    st.sampled_from([image_hdu(), image_hdu((100, 50)), groups_hdu((3,), bitpix=16, pcount=1, gcount=9)]),
    st.lists(hdus, max_size=4),
    tails,
)
files = st.one_of(mutated(good), good, st.binary(max_size=300), st.binary(max_size=300).map(b"SIMPLE  =".__add__))

sizes = st.sampled_from([1, 79, 80, 81, 1000, BLOCK, 12 * BLOCK, 2**20])
policies = st.builds(ReadPolicy, first=sizes, header=sizes, longest=sizes, gap=sizes)


def walk_in_pieces(data: bytes, policy: ReadPolicy, draw: Callable[[int, int], int]) -> Walked:
    """Walk a file whose bytes come as ``draw(low, high)`` decides: early, late, in part, twice, in any order."""
    walked = Walked()
    walker = HeaderWalker(len(data) if draw(0, 1) else None, policy, LIMITS)

    def give(start: int, stop: int) -> None:
        walker.receive(start, data[start:stop])

    def give_anything() -> None:
        if draw(0, 9) == 0:
            walker.ends_at(len(data))
        start = draw(0, len(data))
        give(start, start + draw(0, 2 * BLOCK))

    try:
        for _ in range(draw(0, 3)):
            give_anything()
        while not isinstance(event := walker.next_event(), EndOfFile):
            if isinstance(event, Hdu):
                walked.hdus.append(event)
                continue
            before = event
            for start, stop in event.spans:
                # At least one of the bytes that were asked for, so that the walk goes on.
                give(start, start + draw(1, stop - start))
                for _ in range(draw(0, 2)):
                    give_anything()
                if start >= len(data):
                    walker.ends_at(len(data))
            if draw(0, 3) == 0:
                give(*before.spans[0])
        walked.end = event
    except FormatError as fault:
        walked.fault = fault
    return walked


@settings(deterministic, max_examples=300)
@given(files, policies, st.integers(0, 2**32))
@example(image_hdu() + image_hdu((2880,), xtension="IMAGE") + b"junk", ReadPolicy(1, 1, 1, 0), 0)
def test_how_the_bytes_come_does_not_matter(data: bytes, policy: ReadPolicy, seed: int) -> None:
    expected = walk_bytes(data, limits=LIMITS)
    # Seeded choices, thousands a walk: drawn one by one through Hypothesis they would be all that is tested.
    walked = walk_in_pieces(data, policy, random.Random(seed).randint)
    assert walked.outcome == expected.outcome


@settings(deterministic, max_examples=300)
@given(files, policies, st.booleans())
def test_any_reads_of_any_size_find_the_same(data: bytes, policy: ReadPolicy, known: bool) -> None:
    walked = walk_bytes(data, known=known, policy=policy, limits=LIMITS)
    assert walked.outcome == walk_bytes(data, limits=LIMITS).outcome
    # What is asked for moves forward only: no byte is asked for twice.
    assert all(before[1] <= after[0] for before, after in zip(walked.spans, walked.spans[1:], strict=False))


def exactly(hdus: list[Hdu]) -> Guess:
    """Return the guess that is right for a file of these HDUs."""
    return Guess(
        tuple(Span(hdu.header_offset, hdu.data_offset) for hdu in hdus), tuple(hdu.header_size for hdu in hdus)
    )


@st.composite
def any_spans(draw: st.DrawFn, places: st.SearchStrategy[int]) -> tuple[Span, ...]:
    """Draw reads that do not overlap, in order; some of them touch."""
    edges = sorted(draw(st.sets(places, max_size=12)))
    return tuple(Span(*edge) for edge in pairwise(edges) if draw(st.booleans()))


whole_blocks = st.integers(0, 60).map(BLOCK.__mul__)
header_sizes = st.lists(st.one_of(whole_blocks, st.integers(0, 10**6)), max_size=6).map(tuple)
guesses = st.one_of(
    files.map(lambda data: exactly(walk_bytes(data, limits=LIMITS).hdus)),
    st.builds(Guess, any_spans(whole_blocks), header_sizes),
    st.builds(Guess, any_spans(st.one_of(whole_blocks, st.integers(0, 10**6), st.integers(0, 2**63))), header_sizes),
)
"""Of another file, of whole blocks, and of anything."""


@st.composite
def nearly(draw: st.DrawFn, hdus: list[Hdu]) -> Guess:
    """Draw a guess that is right for some of the HDUs, in places or in lengths."""
    right = exactly(hdus)
    headers = [span for span in right.headers if draw(st.booleans())]
    lengths = list(right.lengths)
    if headers and draw(st.booleans()):  # the last one reaches further, or not as far
        headers[-1] = Span(headers[-1].start, headers[-1].start + draw(st.integers(1, 4 * BLOCK)))
    if lengths and draw(st.booleans()):
        lengths[draw(st.integers(0, len(lengths) - 1))] = draw(st.integers(0, 5)) * BLOCK
    return Guess(tuple(headers), tuple(lengths[: draw(st.integers(0, len(lengths)))]))


@settings(deterministic, max_examples=500)
@given(files, guesses, policies, st.booleans())
@example(b"", Guess((Span(0, 1),), (BLOCK,)), ReadPolicy(), True)
@example(image_hdu(), Guess((Span(0, BLOCK), Span(BLOCK, 2 * BLOCK)), (BLOCK, BLOCK)), ReadPolicy(), True)
def test_any_guess_finds_the_same(data: bytes, guess: Guess, policy: ReadPolicy, known: bool) -> None:
    walked = walk_bytes(data, known=known, policy=policy, limits=LIMITS, guess=guess)
    assert walked.outcome == walk_bytes(data, limits=LIMITS).outcome


@settings(deterministic, max_examples=500)
@given(files, policies, st.booleans(), st.data())
def test_a_guess_that_is_nearly_right_finds_the_same(
    data: bytes, policy: ReadPolicy, known: bool, choices: st.DataObject
) -> None:
    expected = walk_bytes(data, limits=LIMITS)
    guess = choices.draw(nearly(expected.hdus))
    walked = walk_bytes(data, known=known, policy=policy, limits=LIMITS, guess=guess)
    assert walked.outcome == expected.outcome


sound = st.builds(
    lambda first, rest: first + b"".join(rest),
    st.sampled_from([image_hdu(), image_hdu((100, 50)), groups_hdu((3,), bitpix=16, pcount=1, gcount=9)]),
    st.lists(
        st.one_of(
            st.builds(image_hdu, st.sampled_from([(), (5,), (50, 70), (2880,)]), xtension=st.just("IMAGE")),
            st.builds(bintable_hdu, st.integers(0, 100), st.integers(0, 50), heap=st.integers(0, 3000)),
            st.builds(lambda count: image_hdu((7,), *["COMMENT"] * count, xtension="IMAGE"), st.integers(0, 200)),
        ),
        max_size=8,
    ),
)
"""Files with nothing wrong, and nothing behind their last HDU."""


@settings(deterministic, max_examples=200)
@given(sound, policies)
def test_the_right_guess_is_all_that_is_asked_for(data: bytes, policy: ReadPolicy) -> None:
    expected = walk_bytes(data)
    assert expected.end == EndOfFile(len(expected.hdus), 0)
    walked = walk_bytes(data, policy=policy, guess=exactly(expected.hdus))
    assert walked.outcome == expected.outcome
    assert walked.rounds == 1
    # Neighbours are read with what lies between them, where that is no more than the gap; nothing else is.
    apart = [
        hdu.header_offset
        for before, hdu in pairwise(expected.hdus)
        if hdu.header_offset - before.data_offset > policy.gap
    ]
    assert [start for start, _ in walked.spans] == [0, *apart]
    assert walked.spans[-1][1] == expected.hdus[-1].data_offset


@settings(deterministic, max_examples=500)
@given(files)
def test_hdus_are_what_the_file_has(data: bytes) -> None:
    walked = walk_bytes(data, limits=LIMITS)
    at = 0
    for index, hdu in enumerate(walked.hdus):
        assert (hdu.index, hdu.header_offset) == (index, at)
        end = at + len(hdu.header)
        assert data[at:end] == hdu.header
        assert data[end : end + 3] == b"END"
        assert (hdu.header_size % BLOCK, len(hdu.header) % CARD) == (0, 0)
        assert hdu.header_size - BLOCK < len(hdu.header) + CARD <= hdu.header_size
        assert hdu.data_offset == at + hdu.header_size
        at = hdu.end
    if walked.end is not None:
        assert walked.end == EndOfFile(len(walked.hdus), len(data) - at)
        assert walked.end.trailing_bytes >= 0
    else:
        assert walked.fault is not None
        assert 0 <= walked.fault.offset <= len(data)
        assert str(walked.fault).isprintable()


@settings(deterministic, max_examples=200)
@given(files)
def test_a_file_cut_short_has_no_other_hdus(data: bytes) -> None:
    whole = walk_bytes(data, limits=LIMITS).hdus
    for length in range(0, len(data), 997):
        part = walk_bytes(data[:length], limits=LIMITS).hdus
        assert part == whole[: len(part)]


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": lambda data: gzip.compress(data, mtime=0), "bzip2": bz2.compress}


@st.composite
def packed(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> tuple[str, bytes, bytes]:
    """Draw a compression, a stream of some members with NULs between and garbage behind, and what is in it."""
    compression = draw(st.sampled_from(sorted(PACK)))
    members = draw(st.lists(whole, min_size=1, max_size=4))
    stream = b"".join(PACK[compression](member) + bytes(draw(st.sampled_from([0, 0, 1, 512]))) for member in members)
    return compression, stream + draw(st.sampled_from([b"", b"", b"garbage"])), b"".join(members)


def unpack(compression: str, feeds: list[bytes], max_bytes: int) -> tuple[bytes, str]:
    """Return what a stream gives before its end or a fault, and the fault's name."""
    decompressor = Decompressor(compression, max_bytes)
    found = []
    try:
        for feed in feeds:
            decompressor.feed(feed)
            while (chunk := decompressor.read()) is not None:
                found.append(chunk)
        decompressor.finish()
    except FormatError as fault:
        return b"".join(found), type(fault).__name__
    return b"".join(found), ""


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


cut_lists = st.lists(st.integers(0, 10**6), max_size=20)


@settings(deterministic, max_examples=200)
@given(packed(st.binary(max_size=3000)), cut_lists)
def test_a_stream_in_any_feeds_gives_the_same(stream: tuple[str, bytes, bytes], cuts: list[int]) -> None:
    compression, data, content = stream
    assert unpack(compression, split(data, cuts), 10**6) == (content, "")


@settings(deterministic, max_examples=200)
@given(mutated(packed(st.binary(max_size=3000)).map(lambda stream: stream[1])), cut_lists)
def test_a_damaged_gzip_in_any_feeds_gives_the_same(data: bytes, cuts: list[int]) -> None:
    # zlib tells a fault some bytes earlier or later as the feeds have it; what it gives before it is nearly the same.
    whole, fault = unpack("gzip", [data], 10**6)
    parts, same_fault = unpack("gzip", split(data, cuts), 10**6)
    assert fault == same_fault
    assert parts.startswith(whole) or whole.startswith(parts)
    if not fault:
        assert parts == whole


@settings(deterministic, max_examples=300)
@given(
    st.one_of(
        files,
        packed(good).map(lambda stream: stream[1]),
        mutated(packed(good).map(lambda stream: stream[1])),
        st.sampled_from([b"\x1f\x8b", b"BZh", b"\x1f\x9d", b"PK\x03\x04"]).flatmap(
            lambda magic: st.binary(max_size=100).map(magic.__add__)
        ),
    ),
    policies,
    st.sampled_from(["all", "size", "nothing"]),
)
def test_every_file_becomes_a_row(data: bytes, policy: ReadPolicy, tells: str) -> None:
    store = BytesStore(data, tells=tells)  # type: ignore[arg-type]
    result = walk_file(store, store.ref(), Scope(policy, LIMITS))
    assert result.status in {"ok", "truncated", "corrupt", "not-fits"}
    assert (result.error is None) == (result.status == "ok") == (result.trailing_bytes is not None)
    assert result.error is None or result.error.isprintable()
    assert result.requests == len(store.asked)
    if result.compression is None:
        assert result.hdus == walk_bytes(data, limits=LIMITS).hdus


@settings(deterministic, max_examples=300)
@given(st.lists(files, max_size=3), policies)
def test_any_files_become_rows_of_the_catalogue(contents: list[bytes], policy: ReadPolicy) -> None:
    results = [walk_file(store, store.ref(), Scope(policy, LIMITS)) for store in map(BytesStore, contents)]
    tables = tables_of(results, "run", datetime.now(UTC))
    for table in tables.values():
        table.validate(full=True)
    hdus = [hdu for result in results for hdu in result.hdus]
    assert tables["files"]["status"].to_pylist() == [result.status for result in results]
    assert tables["hdus"]["header"].to_pylist() == [hdu.header for hdu in hdus]
    assert tables["hdus"]["data_size"].to_pylist() == [hdu.data_size for hdu in hdus]
    assert tables["cards"].num_rows <= sum(len(hdu.header) // CARD for hdu in hdus)


@settings(deterministic, max_examples=300)
@given(
    st.one_of(files, packed(good).map(lambda stream: stream[1]), mutated(packed(good).map(lambda stream: stream[1]))),
    policies,
    st.integers(0, 30),
)
def test_any_limit_of_time_gives_the_hdus_up_to_it(data: bytes, policy: ReadPolicy, limit: int) -> None:
    store = BytesStore(data)
    expected = walk_file(store, store.ref(), Scope(policy, LIMITS))
    moments = count()  # a second goes by from each look at the clock to the next
    steps = walk_steps(store, store.ref(), Scope(policy, LIMITS, timeout=limit), clock=lambda: next(moments))
    found = finish(steps, store)
    if found.status == "unreadable":
        assert found.error == f"walk given up after {limit} s: --file-timeout allows more"
        assert found.hdus == expected.hdus[: len(found.hdus)]
    else:
        assert (found.status, found.error, found.hdus) == (expected.status, expected.error, expected.hdus)
    assert next(moments) <= limit + 3


def finish(steps: Generator[Reads, Answers, FileResult], store: BytesStore) -> FileResult:
    try:
        reads = next(steps)
        while True:
            reads = steps.send([store.get(reads.ref, span) for span in reads.spans])
    except StopIteration as end:
        result: FileResult = end.value
        return result


@settings(deterministic, max_examples=300)
@given(
    st.one_of(files, packed(good).map(lambda stream: stream[1]), mutated(packed(good).map(lambda stream: stream[1]))),
    st.one_of(guesses, st.just(Guess(compressed=True))),
    policies,
    st.sampled_from(["all", "size", "nothing"]),
    st.sampled_from([None, 1, 2]),
)
def test_any_guess_gives_the_same_row(
    data: bytes, guess: Guess, policy: ReadPolicy, tells: str, max_hdus: int | None
) -> None:
    scope = Scope(policy, LIMITS, max_hdus)
    alone, store = BytesStore(data, tells=tells), BytesStore(data, tells=tells)  # type: ignore[arg-type]
    expected = walk_file(alone, alone.ref(), scope)
    found = walk_file(store, store.ref(), scope, guess)
    same = ["error", "compression", "hdus", "pinned"]
    if max_hdus is None or tells != "nothing":  # else a longer read may happen to tell where the file ends
        same += ["status", "trailing_bytes"]
    if tells != "nothing" or (max_hdus is None and expected.status in {"ok", "truncated"}):  # for the same reason
        same += ["ref"]
    assert [getattr(found, name) for name in same] == [getattr(expected, name) for name in same]
    assert found.requests == len(store.asked)
    assert found.round_trips <= found.requests


@settings(deterministic, max_examples=100)
@given(good, st.sampled_from(sorted(PACK)), policies)
def test_a_compressed_file_has_the_hdus_of_the_file(data: bytes, compression: str, policy: ReadPolicy) -> None:
    plain, packed_ = BytesStore(data), BytesStore(PACK[compression](data))
    expected = walk_file(plain, plain.ref(), Scope(policy, LIMITS))
    found = walk_file(packed_, packed_.ref(), Scope(policy, LIMITS))
    assert found.compression == compression
    same = ("status", "error", "hdus", "trailing_bytes")
    assert [getattr(found, name) for name in same] == [getattr(expected, name) for name in same]
