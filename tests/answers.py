"""Answers that every check must take, and how a check replied: what the tests of the lessons' checks share."""

from __future__ import annotations

from helpers.exercises import check


def stub(*arguments): ...


def raises(*arguments):
    raise ZeroDivisionError("division by zero")


def said(exercise, *answers):
    """Status and text of a check."""
    feedback = check(exercise, *answers)
    return feedback.status, feedback.text
