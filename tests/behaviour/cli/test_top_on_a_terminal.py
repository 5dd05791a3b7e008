"""`top` shows no more than its terminal has room for."""

from fastloop.observe.top import _fitted

TEXT = "\x1b[1m  name\x1b[m  value\nshort\nthird\n\x1b[33mlast\x1b[m"


def test_lines_are_cut_but_for_their_colours():
    assert _fitted(TEXT, 8, 5) == (
        "\x1b[1m  name\x1b[m  \nshort\nthird\n\x1b[33mlast\x1b[m"
    )


def test_the_lines_that_are_left_out_are_counted():
    assert _fitted(TEXT, 80, 4) == (
        "\x1b[1m  name\x1b[m  value\nshort\nand 2 more lines"
    )
    assert _fitted(TEXT, 3, 1) == "and"
