"""Mutants of real files: each has its rows, and they are those that astropy and CFITSIO give where both agree.

A reduced version of ``python -m tests.conformance.mutations``, which makes thousands.
"""

from __future__ import annotations

import pytest

from tests.conformance.libraries import Library
from tests.conformance.mutants import mutants
from tests.conformance.mutations import Outcome, run, sources

COUNT = 150


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(mutants(sources(60), COUNT, seed=0), tmp_path_factory.mktemp("mutants"))


def test_every_mutant_has_its_rows(outcome: Outcome) -> None:
    assert outcome.wrong_rows == []
    assert outcome.counts["mutants"] == COUNT
    # The faults are such that files of every kind come of them.
    assert {"status ok", "status truncated", "status corrupt"} <= set(outcome.counts)


@pytest.mark.skipif(not Library.is_installed("cfitsio"), reason="needs fitsio, of the extra `benchmark`")
def test_places_are_those_of_astropy_and_cfitsio_where_they_agree(outcome: Outcome) -> None:
    assert outcome.other_places == []
    assert outcome.counts["compared"] > COUNT / 5
    assert len(outcome.refused) < outcome.counts["compared"] / 20
