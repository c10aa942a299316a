"""Calls in other processes give what they give in this one."""

from __future__ import annotations

import operator
import os

import numpy as np
import pytest

from sorep.errors import SorepError
from sorep.screening.parallel import LARGE, in_parallel

BIG = np.arange(LARGE, dtype=np.float64)


def test_values_come_in_order_whatever_the_jobs():
    arguments = [(BIG, float(number)) for number in range(12)]
    one = [value for _, value in in_parallel(np.dot, arguments, 1)]
    two = list(in_parallel(np.dot, arguments, 2))
    assert [value[-1] for _, value in two] == [value[-1] for value in one] == [BIG[-1] * n for n in range(12)]
    assert [each[1] for each, _ in two] == list(range(12))
    assert all(each[0] is BIG for each, _ in two)


def test_calls_run_in_processes_of_their_own():
    assert os.getpid() not in {value for _, value in in_parallel(os.getpid, [()] * 3, 2)}
    assert [value for _, value in in_parallel(os.getpid, [()], 1)] == [os.getpid()]


def test_what_a_call_raises_comes_out():
    calls = in_parallel(operator.truediv, [(1, 1), (1, 0), (1, 1)], 2)
    assert next(calls) == ((1, 1), 1.0)
    with pytest.raises(SorepError, match="ZeroDivisionError"):
        next(calls)


def test_no_calls():
    assert list(in_parallel(os.getpid, [], 2)) == []
