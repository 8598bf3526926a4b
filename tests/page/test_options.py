"""Values of the page's options that would break it later are told at once, in one line.

Run: `python -m pytest tests/page/test_options.py`
"""

import sys

import pytest

from page.options import parse_options


@pytest.fixture
def parse(monkeypatch):
    def given(*options: str):
        monkeypatch.setattr(sys, "argv", ["app.py", *options])
        return parse_options()

    return given


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--proxies", "-1", "argument --proxies: '-1' is no whole number from 0 on"),
        ("--proxies", "one", "argument --proxies: 'one' is no whole number from 0 on"),
        ("--waiting", "-5", "argument --waiting: '-5' is no whole number from 1 on"),
        ("--waiting", "0", "argument --waiting: '0' is no whole number from 1 on"),
        ("--port", "abc", "argument --port: invalid int value: 'abc'"),
        (
            "--embed",
            "https://a.b\nx: y",
            "'https://a.b\\nx: y' is no site like https://example.org",
        ),
        ("--embed", "a.b; script-src *", "'a.b; script-src *' is no site like https://example.org"),
        ("--embed", "", "'' is no site like https://example.org"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_and_exit_2(parse, capsys, option, value, why):
    with pytest.raises(SystemExit) as end:
        parse(option, value)
    told = capsys.readouterr().err
    assert end.value.code == 2 and why in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["GRADIO_SERVER_PORT", "GRADIO_NUM_PORTS", "GRADIO_NODE_NUM_PORTS"]
)
def test_a_number_of_gradios_that_is_none_is_told(parse, capsys, monkeypatch, name):
    monkeypatch.setenv(name, "abc")
    with pytest.raises(SystemExit) as end:
        parse()
    told = capsys.readouterr().err
    assert (end.value.code, told) == (
        2,
        f"{name} is 'abc', which is no number; --help lists the options.\n",
    )


def test_values_that_can_be_are_taken(parse, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7870")
    sites = [
        "https://huggingface.co",
        "https://*.hf.space:*",
        "localhost:3000",
        "*",
        "http://[::1]/",
    ]
    options = parse("--proxies", "0", "--waiting", "1", *(f"--embed={site}" for site in sites))
    assert (options.proxies, options.waiting, options.embed) == (0, 1, sites)
    assert parse("--device", "cuda:1").device == "cuda:1"
