"""A rule inside another one, from the command line."""


def test_a_rule_takes_the_name_of_another_that_decides_inside_it(command):
    status, _, errors = command(
        "experiment=trace", "decoder=adablock", "decoder.rule=frechet", "decoder.delimiter_ids=[204]", "prompt=Hi",
        "device=cpu", "tracking=terminal",
    )  # fmt: skip
    assert status == 0, errors


def test_a_rule_that_there_is_not_is_one_line(command):
    status, _, errors = command("decoder=prophet", "decoder.rule=frechett", "device=cpu", "tracking=terminal")
    assert status == 1
    assert errors.startswith("error: decoder.rule='frechett' is not one of")
    assert errors.endswith("did you mean frechet?\n")
